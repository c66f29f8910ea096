import json
from pathlib import Path
from time import sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from jobs.enums import LIVE, JobKind
from jobs.models import Job
from slides.enums import SlideState
from slides.errors import ImportRefused
from slides.importing import Imported, import_file, slide_files
from slides.models import Slide

BETWEEN_LOOKS_SECONDS = 1.0
ENDED = (SlideState.READY, SlideState.QUARANTINED, SlideState.FAILED)


class Command(BaseCommand):
    help = (
        "Takes slide files or folders of them over in place: they are read, never copied, never written to. "
        "Exit code 1 if any was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
        parser.add_argument("--case", required=True, help="Accession number; the case is made if it is missing.")
        parser.add_argument("--node", default="", help="Label of the lymph node.")
        parser.add_argument("--user", default="", help="User name of the person who imports (for the record).")
        parser.add_argument("--wait", action="store_true", help="Wait until every slide is ready or refused.")
        parser.add_argument("--json", action="store_true", help="Print one JSON list.")

    def handle(self, *args: Any, **options: Any) -> None:
        actor = _person(options["user"])
        try:
            results = [
                import_file(
                    path=path, accession=options["case"], node_label=options["node"], actor=actor, hash_now=True
                )
                for path in slide_files(options["paths"])
            ]
        except ImportRefused as error:
            raise CommandError(str(error)) from error
        if options["wait"]:
            self._wait(results, quiet=options["json"])
        answers = [_answer(result) for result in results]
        if options["json"]:
            self.stdout.write(json.dumps(answers))
        else:
            for answer in answers:
                self.stdout.write(f"{answer['file']}: {answer['state']}{_because(answer['reason'])}")
        if any(answer["state"] in ("refused", SlideState.QUARANTINED, SlideState.FAILED) for answer in answers):
            raise SystemExit(1)

    def _wait(self, results: list[Imported], *, quiet: bool) -> None:
        waiting = {result.slide.pk for result in results if result.slide}
        said: dict[Any, str] = {}
        while waiting:
            ended = set(Slide.objects.filter(pk__in=waiting, state__in=ENDED).values_list("pk", flat=True))
            waiting -= ended
            if not quiet:
                for job in Job.objects.filter(kind=JobKind.PREPARE_SLIDE, subject_id__in=waiting, state__in=LIVE):
                    words = job.stage or job.get_state_display()
                    if said.get(job.subject_id) != words:
                        said[job.subject_id] = words
                        self.stderr.write(f"  {job.subject_id}: {words}")
            if waiting:
                sleep(BETWEEN_LOOKS_SECONDS)


def _person(user_name: str) -> User | None:
    if not user_name:
        return None
    user = User.objects.filter(username=user_name, is_active=True).first()
    if user is None:
        raise CommandError(f"There is no active user {user_name!r}.")
    return user


def _answer(result: Imported) -> dict[str, Any]:
    if result.slide is None:
        same = result.duplicate_of
        return {
            "file": result.path.name,
            "state": "refused",
            "reason": result.reason,
            "duplicate_of": str(same.pk) if same else None,
        }
    slide = Slide.objects.get(pk=result.slide.pk)
    return {
        "file": result.path.name,
        "slide": str(slide.pk),
        "case": slide.case.accession,
        "state": str(slide.state),
        "reason": slide.reason,
    }


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
