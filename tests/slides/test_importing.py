"""Import in place from the command line."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from audit_trail.models import Event
from slides import importing
from slides.errors import ImportRefused
from slides.models import Slide
from tests.slides.conftest import prepare_now, write_slide

pytestmark = pytest.mark.django_db


def import_slides(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    out = StringIO()
    try:
        call_command("import_slides", *arguments, "--json", stdout=out)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, json.loads(out.getvalue())


def test_a_folder_is_taken_over_with_its_case_and_node(tmp_path: Path, operator: User) -> None:
    folder = tmp_path / "scanner" / "with spaces"
    (folder / "below").mkdir(parents=True)
    write_slide(folder / "a.svs")
    write_slide(folder / "below" / "b.TIFF", seed=2)
    (folder / "notes.txt").write_text("not a slide")
    (folder / ".hidden.svs").write_bytes(b"x")
    code, answers = import_slides(str(folder), "--case", "S9", "--node", "B1", "--user", "operator")
    assert code == 0
    assert [(answer["file"], answer["state"], answer["case"]) for answer in answers] == [
        ("a.svs", "checking", "S9"),
        ("b.TIFF", "checking", "S9"),
    ]
    slides = Slide.objects.order_by("position")
    assert [(slide.position, slide.node.label, slide.created_by) for slide in slides] == [
        (0, "B1", operator),
        (1, "B1", operator),
    ]
    assert all(slide.imported_in_place and Path(slide.source).is_absolute() for slide in slides)
    assert list(Event.objects.values_list("kind", flat=True)) == ["case_created", "slide_received", "slide_received"]


def test_the_same_file_again_is_refused_and_ends_with_1(tmp_path: Path) -> None:
    first, copy = write_slide(tmp_path / "a.svs"), tmp_path / "copy.svs"
    copy.write_bytes(first.read_bytes())
    assert import_slides(str(first), "--case", "S1")[0] == 0
    for path in (first, copy):
        code, [answer] = import_slides(str(path), "--case", "S2")
        assert (code, answer["state"]) == (1, "refused")
        assert answer["duplicate_of"] == str(Slide.objects.get().pk)
        assert "case S1" in answer["reason"]


def test_waiting_ends_when_the_worker_has_decided(tmp_path: Path, monkeypatch: Any) -> None:
    good, bad = write_slide(tmp_path / "good.svs"), tmp_path / "bad.svs"
    bad.write_text("Dear colleague, " * 100)

    def worker_works(_: float) -> None:
        for slide in Slide.objects.filter(state="checking"):
            prepare_now(slide.pk)

    monkeypatch.setattr("slides.management.commands.import_slides.sleep", worker_works)
    code, answers = import_slides(str(good), str(bad), "--case", "S1", "--wait")
    assert [answer["state"] for answer in answers] == ["ready", "quarantined"]
    assert code == 1


@pytest.mark.parametrize(
    "arguments", [["/nowhere", "--case", "S1"], [".", "--case", " "], [".", "--case", "S1", "--user", "x"]]
)
def test_what_cannot_be_imported_is_said(tmp_path: Path, monkeypatch: Any, arguments: list[str]) -> None:
    write_slide(tmp_path / "a.svs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError):
        call_command("import_slides", *arguments)
    assert not Slide.objects.exists()


def test_a_folder_without_slides_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="holds no slide file"):
        importing.slide_files([tmp_path])


@pytest.mark.slow
def test_every_reference_slide_ends_ready_or_with_a_reason(reference_data: Path, operator: User) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for path in importing.slide_files([reference_data / "slides"]):
        result = importing.import_file(path=path, accession="S1", actor=operator, hash_now=False)
        assert result.slide is not None, result.reason
        slide = prepare_now(result.slide.pk)
        assert slide.state in ("ready", "quarantined"), (path.name, slide.state, slide.reason)
        assert slide.state == "ready" or len(slide.reason) > 20
        seen[path.name] = (slide.state, slide.reason_code)
    assert seen["CMU-1-Small-Region.svs"] == ("ready", "")
    assert seen["pathml_small_vectra_fluorescence.qptiff"] == ("quarantined", "not_brightfield")
