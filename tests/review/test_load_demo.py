"""The demo: what it makes, that a second run adds nothing, what it says when something is missing."""

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from accounts.enums import Role
from accounts.models import User
from analysis.detector import card
from analysis.models import ModelVersion
from audit_trail.models import Event
from jobs.models import Job
from review.models import Assignment
from slides.models import Case, Slide
from tests.analysis.test_runs import model_folder
from tests.slides.wsi.made_slides import tissue_picture, write_jpeg_tiff, write_svs

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo folder of two tiny slides, and a shipped model of a few bytes."""
    monkeypatch.setattr(card, "MODELS_FOLDER", tmp_path / "models")
    model_folder(tmp_path / "models" / "lite-1", seed=1, evaluation={"patches": {"auc": 0.9}})
    folder = tmp_path / "demo"
    folder.mkdir()
    picture = tissue_picture(600, 500)
    write_jpeg_tiff(folder / "composed_node.tif", picture)
    write_svs(folder / "CMU-1-Small-Region.svs", np.ascontiguousarray(picture[::-1]))
    return folder


def load(folder: Path) -> str:
    out = StringIO()
    call_command("load_demo", folder=folder, stdout=out)
    return out.getvalue()


def test_it_makes_people_cases_slides_jobs_and_assignments(demo: Path, home: Path) -> None:
    said = load(demo)
    assert {role for user in User.objects.all() for role in user.roles} == set(Role.values)
    assert ModelVersion.objects.filter(state="active").count() == 1
    assert sorted(Case.objects.values_list("accession", flat=True)) == ["DEMO-1", "DEMO-2"]
    assert "Composed" in Case.objects.get(accession="DEMO-1").note
    assert Slide.objects.filter(imported_in_place=True).count() == Job.objects.count() == 2
    readers = Assignment.objects.filter(case__accession="DEMO-1").values_list("reader__username", "role")
    assert set(readers) == {("reader", "first"), ("reader2", "second"), ("adjudicator", "adjudicator")}
    kept = home / "demo-passwords.txt"
    assert kept.stat().st_mode & 0o777 == 0o600
    for line in kept.read_text().splitlines():
        name, password = line.split("\t")
        assert User.objects.get(username=name).check_password(password)
        assert password in said


def test_a_second_run_adds_nothing_and_prints_no_password(demo: Path, home: Path) -> None:
    load(demo)
    before = (User.objects.count(), Slide.objects.count(), Assignment.objects.count(), Event.objects.count())
    passwords = (home / "demo-passwords.txt").read_text()
    said = load(demo)
    after = (User.objects.count(), Slide.objects.count(), Assignment.objects.count(), Event.objects.count())
    assert before == after
    assert (home / "demo-passwords.txt").read_text() == passwords
    assert not any(line.split("\t")[1] in said for line in passwords.splitlines())


def test_no_two_people_share_a_password(demo: Path, home: Path) -> None:
    load(demo)
    lines = (home / "demo-passwords.txt").read_text().splitlines()
    assert len({line.split("\t")[1] for line in lines}) == len(lines) == 6


def test_a_missing_demo_slide_is_said_before_anything_is_made(demo: Path) -> None:
    shutil.move(demo / "composed_node.tif", demo / "elsewhere.tif")
    with pytest.raises(CommandError, match="composed_node"):
        load(demo)
    assert not User.objects.exists()
