"""An administrator sends a model version, has it measured, and puts it into use, on the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link
from analysis import evaluating
from analysis.detector.card import CARD_NAME, WEIGHTS_NAME
from analysis.enums import ModelState
from analysis.models import ModelVersion
from jobs.models import Job
from jobs.running import run
from tests.analysis.conftest import home, model_files  # noqa: F401  (fixtures)
from tests.analysis.detector.test_patch_file import write_patches
from tests.browser.test_log_in import assert_accessible

pytestmark = pytest.mark.browser


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
    """Before the server starts, so that it knows the set."""
    path = write_patches(tmp_path / "some_patches.npz", n=12, fold=np.full(12, 4, np.int8))
    monkeypatch.setenv("METADET_EVALUATION_PATCHES", str(path))
    monkeypatch.setenv("METADET_HOME", str(tmp_path / "home"))
    settings.EVALUATION_PATCHES = path
    return path


def send(page: Page, folder: Path, *, weights: Path | None = None) -> None:
    page.get_by_label("Card (model.json)").set_input_files(folder / CARD_NAME)
    page.get_by_label("Weights (").set_input_files(weights or folder / WEIGHTS_NAME)
    page.get_by_role("button", name="Register").click()


@pytest.mark.usefixtures("home")
def test_a_version_goes_in_is_measured_and_put_into_use(
    patches: Path,
    site: str,
    page: Page,
    model_files: Callable[..., Path],  # noqa: F811  (the fixture)
) -> None:
    admin = User.objects.create(username="adam", printed_name="Adam Admin", roles=[Role.ADMINISTRATOR])
    page.goto(f"{site}/accounts/one-time/{make_one_time_link(user=admin)}/")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{site}/models/")
    expect(page.locator("main")).to_contain_text("No model version is registered")
    assert_accessible(page)

    # Files that do not belong together are refused.
    first, second = model_files("1", seed=1), model_files("2", seed=2)
    send(page, first, weights=second / WEIGHTS_NAME)
    expect(page.get_by_role("status")).to_contain_text("SHA-256 differs")

    # A version goes in, and cannot be used before it is measured.
    send(page, first)
    expect(page.get_by_role("status")).to_contain_text("small 1 is registered")
    expect(page.get_by_role("button", name="Activate")).to_have_count(0)
    page.get_by_role("button", name="Evaluate").click()
    expect(page.locator("[data-job-state]")).to_contain_text("waiting")
    assert_accessible(page)

    # The page follows the job by itself.
    def measure(job: Job, lease: Any) -> None:
        lease.report("reading patches", 0.4)
        expect(page.locator("[data-job-state]")).to_contain_text("running", timeout=30_000)
        evaluating.do_evaluation(job, lease)

    assert run(job_id=Job.objects.get().pk, handler=measure, on_ended_badly=evaluating.record_bad_end) == "done"
    expect(page.get_by_role("region", name="Evaluations of small 1 made here: table")).to_contain_text(
        "patches: some_patches.npz", timeout=30_000
    )
    assert_accessible(page)

    page.get_by_role("button", name="Activate").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("AUC")
    dialog.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("status")).to_contain_text("small 1 is active")
    assert ModelVersion.objects.get().state == ModelState.ACTIVE
