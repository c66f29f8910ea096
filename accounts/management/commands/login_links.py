from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.urls import reverse

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link


class Command(BaseCommand):
    help = "Prints one log-in link per role (role, tab, address). Each link works once, for 24 hours."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--address", default="http://127.0.0.1:8000", help="Address of the web server.")

    def handle(self, *args: Any, **options: Any) -> None:
        address = options["address"].rstrip("/")
        for role in Role.values:
            user = (
                User.objects.filter(roles__contains=[role], is_active=True).order_by("date_joined", "username").first()
            )
            if user is not None:
                path = reverse("one-time-log-in", args=[make_one_time_link(user=user)])
                self.stdout.write(f"{role}\t{address}{path}")
