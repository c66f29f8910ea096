import sys
from typing import Any

from django.core.management.base import BaseCommand

from metadet_site.local_stack import guard


class Command(BaseCommand):
    # manage.py hands `up` over before Django is loaded; this class lists it among the commands and serves django-admin.
    help = "Starts the whole of metadet on this machine: database, queue, migrations, web server, workers, scheduler."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(guard.main([]))
