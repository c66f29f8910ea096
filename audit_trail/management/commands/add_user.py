"""In audit_trail, the lowest room that can record the act."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.urls import reverse

from accounts.enums import Role
from accounts.errors import AccountsError
from accounts.people import add_person
from accounts.sign_in import make_one_time_link
from audit_trail.enums import EventKind
from audit_trail.recording import record


class Command(BaseCommand):
    help = "Adds a person and prints the link that lets them in once, to set their password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_name")
        parser.add_argument("--printed-name", required=True, help="Stands under signatures, for example 'Dr Ada Li'.")
        parser.add_argument("--role", action="append", required=True, choices=Role.values, help="May be repeated.")
        parser.add_argument("--may-view-associated", action="store_true", help="May see label and macro images.")
        parser.add_argument("--address", default="http://127.0.0.1:8000", help="Address of the web server.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():
                user = add_person(
                    user_name=options["user_name"],
                    printed_name=options["printed_name"],
                    roles=[Role(role) for role in options["role"]],
                    may_view_associated=options["may_view_associated"],
                )
                details = {"user_name": user.username, "roles": user.roles}
                record(EventKind.ACCOUNT_CREATED, actor=None, subject=user, details=details)
        except AccountsError as error:
            raise CommandError(str(error)) from error
        path = reverse("one-time-log-in", args=[make_one_time_link(user=user)])
        self.stdout.write(f"{options['address'].rstrip('/')}{path}")
