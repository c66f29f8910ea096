"""Log-ins, refusals and log-outs as events."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest

from accounts.models import User
from accounts.signals import password_set
from audit_trail.enums import EventKind, Outcome
from audit_trail.recording import record


@receiver(user_logged_in)
def record_log_in(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    with transaction.atomic():
        record(EventKind.LOGGED_IN, actor=user, subject=user, request=request)


@receiver(user_logged_out)
def record_log_out(sender: Any, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        with transaction.atomic():
            record(EventKind.LOGGED_OUT, actor=user, subject=user, request=request)


@receiver(user_login_failed)
def record_refusal(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    with transaction.atomic():
        record(
            EventKind.LOG_IN_REFUSED,
            actor=None,
            details={"user_name": str(credentials.get("username", ""))[:150]},
            outcome=Outcome.DENIED,
            request=request,
        )


@receiver(password_set)
def record_password(sender: Any, user: User, request: HttpRequest, **kwargs: Any) -> None:
    with transaction.atomic():
        record(EventKind.ACCOUNT_CHANGED, actor=user, subject=user, details={"changed": "password"}, request=request)
