"""The demo: one person per role and two cases, by the same import, jobs and workers as real use."""

import os
import secrets
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts.enums import Role
from accounts.models import User
from analysis.detector.card import ModelRefused as CardRefused
from analysis.errors import AnalysisError
from analysis.models_registry import register_shipped
from analysis.runs import latest_job, live_run
from audit_trail.enums import EventKind
from audit_trail.recording import record
from jobs.enums import LIVE
from review.assigning import assign_case
from review.enums import AssignmentRole
from review.models import Assignment
from slides.enums import SlideState
from slides.importing import import_file
from slides.models import Case, Slide

PEOPLE: tuple[tuple[str, str, tuple[Role, ...]], ...] = (
    # user name, printed name, roles
    ("reader", "Dr Ada Reader", (Role.READER,)),
    ("reader2", "Dr Ben Second", (Role.READER,)),
    ("adjudicator", "Dr Cora Adjudicator", (Role.ADJUDICATOR,)),
    ("operator", "Otto Operator", (Role.OPERATOR,)),
    ("auditor", "Quinn Auditor", (Role.AUDITOR,)),
    ("administrator", "Ira Administrator", (Role.ADMINISTRATOR,)),
)
COMPOSED, REAL = "DEMO-1", "DEMO-2"
NOTES = {
    COMPOSED: "Composed slide: lesions of known outline put into real lymph node tissue (CAMELYON16). Not a patient's slide.",
    REAL: "Real Aperio slide for trying out the viewer (CMU-1-Small-Region, OpenSlide test data, CC0): skin, not a lymph node.",
}
ASSIGNED = (
    (COMPOSED, "reader", AssignmentRole.FIRST),
    (COMPOSED, "reader2", AssignmentRole.SECOND),
    (COMPOSED, "adjudicator", AssignmentRole.ADJUDICATOR),
    (REAL, "reader", AssignmentRole.FIRST),
    (REAL, "reader2", AssignmentRole.SECOND),
)
BETWEEN_LOOKS_SECONDS = 1.0
BETWEEN_LINES_SECONDS = 5.0


class Command(BaseCommand):
    help = "Makes the demo people and cases. Run again, it adds only what is missing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", action="store_true", help="Until the slides are ready and case 1 is detected.")
        parser.add_argument("--timeout", type=float, default=900.0, help="Seconds to wait at most (default 900).")
        parser.add_argument("--folder", type=Path, default=Path(settings.BASE_DIR) / "demo", help="The demo slides.")

    def handle(self, *args: Any, **options: Any) -> None:
        files = demo_files(options["folder"])
        try:
            model_version = register_shipped()
        except (AnalysisError, CardRefused) as error:
            raise CommandError(f"The shipped model cannot be registered: {error}") from error
        self.stdout.write(f"Model version: {model_version}")
        self._make_people()
        slides = [self._import(path, accession, label) for path, accession, label in files]
        for accession, name, role in ASSIGNED:
            assign_if_missing(Case.objects.get(accession=accession), User.objects.get(username=name), role)
        if options["wait"]:
            self._wait(slides, options["timeout"])

    def _make_people(self) -> None:
        made = [made for person in PEOPLE if (made := make_person(*person)) is not None]
        if not made:
            return
        path = keep_passwords(made)
        self.stdout.write(f"People were made; their passwords (needed for signing) stand in {path} and nowhere else:")
        for name, password in made:
            self.stdout.write(f"  {name:<14} {password}")

    def _import(self, path: Path, accession: str, label: str) -> Slide:
        case = make_case(accession)
        found = import_file(path=path, accession=case.accession, node_label=label, actor=None, hash_now=True)
        slide = found.slide or found.duplicate_of
        if slide is None:
            raise CommandError(f"{path.name} was not imported: {found.reason}")
        self.stdout.write(f"{accession}: {path.name} {'is being prepared' if found.slide else 'was there already'}")
        return slide

    def _wait(self, slides: list[Slide], timeout_s: float) -> None:
        began = said_at = time.monotonic()
        said = ""
        while True:
            states = [self._state(slide) for slide in slides]
            words = "; ".join(text for text, _ in states)
            if words != said and (time.monotonic() - said_at > BETWEEN_LINES_SECONDS or not said):
                self.stdout.write(words)
                said, said_at = words, time.monotonic()
            if all(ended for _, ended in states):
                self.stdout.write(f"The demo is ready after {time.monotonic() - began:.0f} s: {words}")
                return
            if time.monotonic() - began > timeout_s:
                raise CommandError(f"After {timeout_s:.0f} s the demo is not ready ({words}). Are the workers running?")
            time.sleep(BETWEEN_LOOKS_SECONDS)

    def _state(self, slide: Slide) -> tuple[str, bool]:
        """Where a slide is, in words, and whether there is nothing more to wait for. Raises CommandError when it failed."""
        slide.refresh_from_db()
        name = f"{slide.case.accession} {slide.display_name}"
        if slide.state in (SlideState.FAILED, SlideState.QUARANTINED):
            raise CommandError(f"{name} is {slide.get_state_display()}: {slide.reason}")
        if slide.state != SlideState.READY:
            return f"{name}: {slide.get_state_display()}", False
        if slide.case.accession != COMPOSED:
            return f"{name}: ready", True
        if live_run(slide) is not None:
            return f"{name}: ready, detected", True
        job = latest_job(slide)
        if job is not None and job.state not in LIVE:
            raise CommandError(f"Detection of {name} was {job.get_state_display()}: {job.error}")
        stage = f"{job.stage or job.get_state_display()} {job.progress:.0%}" if job else "not asked for yet"
        return f"{name}: ready, detection {stage}", False


def demo_files(folder: Path) -> list[tuple[Path, str, str]]:
    """(file, accession number, lymph node) of the demo. Raises CommandError when one is missing."""
    composed = sorted(folder.glob("composed_node*.tif"))
    real = folder / "CMU-1-Small-Region.svs"
    if not composed or not real.is_file():
        raise CommandError(f"The demo slides (composed_node*.tif, {real.name}) are not in {folder}.")
    return [
        *((path, COMPOSED, f"LN{number}") for number, path in enumerate(composed, start=1)),
        (real, REAL, "LN1"),
    ]


@transaction.atomic
def make_person(name: str, printed_name: str, roles: tuple[Role, ...]) -> tuple[str, str] | None:
    """Name and new random password; None when the account is there already."""
    if User.objects.filter(username=name).exists():
        return None
    password = secrets.token_urlsafe(15)
    user = User(
        username=name,
        printed_name=printed_name,
        roles=[str(role) for role in roles],
        may_view_associated=Role.OPERATOR in roles,
    )
    user.set_password(password)
    user.save()
    details = {"user_name": name, "roles": user.roles}
    record(EventKind.ACCOUNT_CREATED, actor=None, subject=user, details=details)
    return name, password


def keep_passwords(made: list[tuple[str, str]]) -> Path:
    """Appends to a file that its owner alone can read."""
    path = Path(settings.METADET_HOME) / "demo-passwords.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}\t{password}\n" for name, password in made)
    return path


@transaction.atomic
def make_case(accession: str) -> Case:
    case, made = Case.objects.get_or_create(accession=accession, defaults={"note": NOTES[accession]})
    if made:
        record(EventKind.CASE_CREATED, actor=None, subject=case, case_id=case.pk, details={"demo": True})
    return case


def assign_if_missing(case: Case, reader: User, role: AssignmentRole) -> None:
    """A demo assignment that was withdrawn stays withdrawn."""
    if not Assignment.objects.filter(case=case, reader=reader).exists():
        assign_case(case=case, reader=reader, role=role, actor=None)
