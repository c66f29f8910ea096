import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from audit_trail.enums import EventKind
from audit_trail.recording import record
from audit_trail.verification import Verdict, verify_trail

WORDS = {
    Verdict.WHOLE: "The trail is whole.",
    Verdict.TAMPERED: "The trail was TAMPERED with.",
    Verdict.SHORTER: "The trail is SHORTER than a known checkpoint: restored from an older copy, or its end was cut off.",
    Verdict.CANNOT_TELL: "It cannot be told whether the trail is whole.",
}


class Command(BaseCommand):
    help = "Checks the whole trail. Exit status: 0 whole, 2 tampered, 3 shorter than a known checkpoint, 4 cannot tell."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=int, default=0, metavar="SEQ", help="Check only events after this number.")
        parser.add_argument("--against", type=Path, metavar="FILE", help="A checkpoint file kept elsewhere.")

    def handle(self, *args: Any, **options: Any) -> None:
        result = verify_trail(since=options["since"], against=options["against"])
        for line in (*result.tampered, *result.shorter, *result.unknown):
            self.stdout.write(f"- {line}")
        self.stdout.write(
            f"{WORDS[result.verdict]} {result.events} events, {result.checkpoints} checkpoints, head {result.head_seq} {result.head_hash[:16]}"
        )
        if options["against"] is None:
            self.stdout.write("Without --against FILE (a copy kept elsewhere), a cut-off end would not be noticed.")
        if result.verdict is Verdict.WHOLE:
            with transaction.atomic():
                record(
                    EventKind.TRAIL_VERIFIED,
                    actor=None,
                    details={"events": result.events, "head_seq": result.head_seq, "head_hash": result.head_hash},
                )
        sys.exit(int(result.verdict))
