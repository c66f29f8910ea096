import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from slides.wsi.archives import is_archive
from slides.wsi.check import QUARANTINED, describe_in_words


class Command(BaseCommand):
    help = "Says what a slide file is, what it would become here and why. Writes nothing. Exit code 1 if it is refused."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(f"There is no file {path}.")
        if path.is_file() and is_archive(path):
            raise CommandError(
                f"{path} is a zip archive. Unpack it to check what it holds; uploaded, it is unpacked by itself."
            )
        found = describe_in_words(path)
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            for line in _lines(found):
                self.stdout.write(line)
        if found["state"] == QUARANTINED:
            raise SystemExit(1)


def _lines(found: dict[str, Any]) -> list[str]:
    if found["state"] == QUARANTINED:
        return [f"{found['file']}: refused ({found['code']}). {found['reason']}"]
    lines = [f"{found['file']}: can be used", *(f"  {what}: {words}" for what, words in found["facts"])]
    return [*lines, found["reason"]] if found["reason"] else lines
