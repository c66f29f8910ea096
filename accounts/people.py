"""Adding people. Accounts are switched off, never deleted or reused (21 CFR 11.100(a))."""

from collections.abc import Iterable

from django.db import transaction

from accounts.enums import Role
from accounts.errors import AccountsError
from accounts.models import User


class NotAPerson(AccountsError):
    code = "not_a_person"


@transaction.atomic
def add_person(*, user_name: str, printed_name: str, roles: Iterable[Role], may_view_associated: bool = False) -> User:
    """A new account without a password: its one-time link lets the person in, who then sets one. Raises NotAPerson."""
    user_name, printed_name = user_name.strip(), printed_name.strip()
    chosen = sorted(set(roles))
    if not user_name or not printed_name:
        raise NotAPerson("A person needs a user name and the printed name that stands under signatures.")
    if not chosen:
        raise NotAPerson(f"A person needs at least one role: {', '.join(Role.values)}.")
    if User.objects.filter(username__iexact=user_name).exists():
        raise NotAPerson(
            f"There is an account {user_name} already. Accounts are never reused; choose another user name."
        )
    user = User(username=user_name, printed_name=printed_name, roles=chosen, may_view_associated=may_view_associated)
    user.set_unusable_password()
    user.save(force_insert=True)
    return user
