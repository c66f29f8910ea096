from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from metadet_site.reference import states_page

FOLDER = Path(settings.BASE_DIR) / "docs" / "reference"


class Command(BaseCommand):
    help = "Writes the parts of docs/reference that are made from the code: openapi.yaml and states.md."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Write nothing; fail when a file is not up to date.")

    def handle(self, *args: Any, **options: Any) -> None:
        made = {"states.md": states_page(), "openapi.yaml": self._schema()}
        if not options["check"]:
            for name, text in made.items():
                (FOLDER / name).write_text(text)
            return
        stale = [name for name, text in made.items() if not _same(FOLDER / name, text)]
        if stale:
            raise CommandError(f"Not up to date: {', '.join(stale)}. Run `manage.py write_reference`.")

    def _schema(self) -> str:
        from io import StringIO

        text = StringIO()
        call_command("spectacular", stdout=text)
        return text.getvalue()


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text
