"""kill -9 in the middle of an evaluation: the figures are there once, the same, without a person."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accounts.enums import Role
from analysis import evaluating
from analysis.detector.slide_evaluation import evaluate_folder
from analysis.detector.weights import load_model
from analysis.models import Evaluation
from analysis.models_registry import register_model
from audit_trail.enums import EventKind
from audit_trail.models import Event
from jobs.models import Job
from tests.analysis.conftest import model_files, write_slide_set  # noqa: F401  (a fixture)
from tests.factories import make_user
from tests.faults.test_killed_detection import kill_pool_child
from tests.local_stack.process_watch import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def has_read_a_slide(job: Job) -> bool:
    job.refresh_from_db()
    return job.state == "running" and any(evaluating._work_folder(job).glob("*.json"))


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_gives_one_result(
    request: pytest.FixtureRequest, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = write_slide_set(tmp_path / "some_slides", normal=[f"normal{n}" for n in range(4)])
    settings.EVALUATION_SLIDES = [slides]
    monkeypatch.setenv("METADET_EVALUATION_SLIDES", str(slides))
    start: Callable[..., Any] = request.getfixturevalue("start")  # after the environment is set
    folder: Path = request.getfixturevalue("model_files")()
    version = register_model(folder=folder, actor=None, believe_card=False)
    admin = make_user("admin", Role.ADMINISTRATOR)
    job = evaluating.request_evaluation(model_version=version, set_name="slides: some_slides", actor=admin)
    start("scheduler")
    worker = start("worker", "evaluate")
    wait_until(lambda: has_read_a_slide(job), what="a slide was read", patience_s=300)
    kill_pool_child(worker.pid)
    wait_until(lambda: Evaluation.objects.exists(), what="the figures are there", patience_s=300)

    job.refresh_from_db()
    assert (job.state, job.attempt) == ("done", 2)
    evaluation = Evaluation.objects.get()
    unbroken = evaluate_folder(slides, load_model(version.path), say=lambda line: None)
    for name in ("slides", "slide_auc", "froc_2016", "lesions_found", "dice", "size_class_confusion"):
        assert evaluation.figures[name] == unbroken[name]
    assert Event.objects.filter(kind=EventKind.MODEL_EVALUATED).count() == 1
    assert not evaluating._work_folder(job).exists()
