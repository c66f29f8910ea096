"""One-time log-in links, and re-authentication before a signature."""

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth import authenticate
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts.errors import LinkNotValid, WrongPassword
from accounts.models import OneTimeLink, User

LINK_LIFETIME = timedelta(hours=24)


def make_one_time_link(*, user: User, lifetime: timedelta = LINK_LIFETIME) -> str:
    """The token of a new link for `user`; it is not kept and cannot be shown again."""
    token = secrets.token_urlsafe(32)
    OneTimeLink.objects.create(token_sha256=_digest(token), user=user, expires_at=timezone.now() + lifetime)
    return token


@transaction.atomic
def use_one_time_link(*, token: str) -> User:
    """The person the link belongs to; the link is spent. Raises LinkNotValid."""
    now = timezone.now()
    link = (
        OneTimeLink.objects.select_for_update()
        .filter(token_sha256=_digest(token), used_at=None, expires_at__gt=now, user__is_active=True)
        .select_related("user")
        .first()
    )
    if link is None:
        raise LinkNotValid
    link.used_at = now
    link.save(update_fields=["used_at"])
    return link.user


def check_password_again(*, request: HttpRequest, user: User, password: str) -> None:
    """Raises WrongPassword. Counts wrong tries toward the same lock-out as the log-in page."""
    if authenticate(request, username=user.username, password=password) != user:
        raise WrongPassword


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
