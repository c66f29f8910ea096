"""The commands as a laboratory runs them, on a cut of the demo slide with the shipped model."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image
from shapely import affinity
from shapely.geometry import Polygon

from analysis.detector import compose, distil, evaluate, infer, quantise, slim, train
from analysis.detector.annotations import read_asap, write_asap
from analysis.detector.composing.slide_file import write_pyramid
from analysis.detector.configuration import config_from_dict
from analysis.detector.network.detector import Detector
from analysis.detector.reference_data import ENVIRONMENT_NAME
from analysis.detector.weights import load_model, save_model
from tests.analysis.detector.conftest import REPOSITORY, SMALL
from tests.analysis.detector.test_patch_file import write_patches

DEMO = REPOSITORY / "demo"
MPP = 0.97


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The surroundings of the demo's micrometastasis as a slide of their own, laid out as CAMELYON16."""
    out = tmp_path_factory.mktemp("slides")
    note = json.loads((DEMO / "composed_node.json").read_text())
    (lesion,) = [le for le in note["lesions"] if le["size_class"] == "micro"]
    left, top, right, bottom = (int(v) for v in lesion["bbox0"])
    x, y, width, height = left - 150, top - 150, right - left + 300, bottom - top + 300
    cut = pyvips.Image.new_from_file(str(DEMO / "composed_node.tif")).crop(x, y, width, height).numpy()[..., :3]
    write_pyramid(out / "cut.tif", cut, mpp=MPP, description="composed", quality=90)
    inside = [a.ring for a in read_asap(DEMO / "composed_node.xml") if a.tumour and abs(a.ring[:, 0].min() - left) < 2]
    write_asap(out / "cut.xml", [affinity.translate(Polygon(ring), -x, -y) for ring in inside])
    (out / "reference.csv").write_text("image,type,class,center\ncut.tif,tumor,micro,brown\n")
    return out


def test_infer_finds_the_micrometastasis_of_the_demo(folder: Path, tmp_path: Path) -> None:
    out, heat = tmp_path / "out.json", tmp_path / "out.png"
    code = infer.main(
        [str(folder / "cut.tif"), "--json", str(out), "--heatmap", str(heat), "--threads", "1", "--quiet"]
    )
    assert code == 0
    found = json.loads(out.read_text())
    assert (found["slide"], found["status"]) == ("cut.tif", "complete")
    assert [found["mpp"], found["mpp_x"], found["mpp_y"]] == pytest.approx([MPP] * 3, rel=1e-4)
    best = found["lesions"][0]
    assert best["size_class"] == "micro"
    (annotation,) = read_asap(folder / "cut.xml")
    x, y = best["peak"]
    low, high = annotation.ring.min(axis=0), annotation.ring.max(axis=0)
    assert low[0] < x < high[0]
    assert low[1] < y < high[1]
    assert np.asarray(Image.open(heat)).shape == (-(-found["height"] * MPP // 8), -(-found["width"] * MPP // 8))


@pytest.mark.parametrize(
    ("name", "content", "reason"), [("absent.svs", None, "there is no slide"), ("text.svs", b"hello", "error:")]
)
def test_infer_refuses_what_is_no_slide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert infer.main([str(tmp_path / name), "--quiet"]) == 2
    assert reason in capsys.readouterr().err


def test_infer_refuses_a_slide_without_scale_and_takes_a_given_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bare.tif"
    pyvips.Image.black(700, 600, bands=3).invert().copy(interpretation="srgb").tiffsave(
        str(path), tile=True, compression="jpeg"
    )
    assert infer.main([str(path), "--quiet"]) == 2
    assert "scale" in capsys.readouterr().err
    assert infer.main([str(path), "--quiet", "--mpp", "1.0"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "cannot_assess"


def test_evaluate_slides_judges_by_the_camelyon_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["slides", str(folder), "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["slides"], found["lesions"], found["lesions_found"]) == (1, 1, 1)
    assert found["slide_auc"] is None
    assert found["froc_stepped"] > 0
    assert np.array(found["size_class_confusion"])[2, 2] == 1


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (None, "no reference.csv"),
        ("image\nx.tif\n", "columns image and type"),
        ("image,type\nx.tif,tumor\n", "x.tif of reference.csv is not in"),
    ],
)
def test_evaluate_slides_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str | None, reason: str
) -> None:
    if table is not None:
        (tmp_path / "reference.csv").write_text(table)
    assert evaluate.main(["slides", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err


def test_evaluate_patches_takes_any_file_of_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["patches", str(write_patches(tmp_path / "p.npz")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 8  # the four of unknown label are left out
    assert 0 <= found["auc"] <= 1
    assert 0 <= found["auc_one_look"] <= 1
    assert 0 <= found["accuracy"] <= 1
    assert set(found["auc_by_stain"]) == {"brown", "purple"}


def test_evaluate_patches_refuses_a_file_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_patches(tmp_path / "p.npz", label=np.full(12, -1, np.int8))
    assert evaluate.main(["patches", str(path)]) == 2
    assert "no labelled patch" in capsys.readouterr().err


def test_the_model_card_page_is_the_one_the_command_writes(tmp_path: Path) -> None:
    assert evaluate.main(["card", "--out", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text() == (REPOSITORY / "docs/reference/model-card.md").read_text()


@pytest.mark.parametrize(
    "command", [infer.main, train.main, compose.main, evaluate.main, quantise.main, distil.main, slim.main]
)
def test_each_command_explains_itself(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(["--help"])
    assert ended.value.code == 0
    assert "usage: python -m analysis.detector." in capsys.readouterr().out


def test_the_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "analysis.detector.infer", "absent.svs"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no slide at absent.svs" in done.stderr


def test_train_and_compose_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main([str(tmp_path / "absent.toml")]) == 2
    assert compose.main([str(tmp_path), "--lesions", "huge"]) == 2
    monkeypatch.setenv(ENVIRONMENT_NAME, str(tmp_path / "nowhere"))
    assert compose.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "cannot read" in said
    assert "unknown lesion class 'huge'" in said
    assert f"set {ENVIRONMENT_NAME}" in said


def test_a_tiny_run_trains_resumes_and_leaves_a_model(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=60)
    config = tmp_path / "tiny.toml"
    text = (REPOSITORY / "analysis/detector/configs/tiny.toml").read_text()
    data = f'[data]\nfolder = "{tmp_path}"\npatches = ["p.npz"]\nhard_negatives = []'
    train_part = "[train]\nregions_every = 0\ncoarse_share = 0.0\nwarmup_steps = 2"
    text = text.replace("[data]", data).replace("[train]", train_part).replace("epochs = 2", "epochs = 10")
    config.write_text(text + "\n[scan]\nsteps = 2\n")
    assert train.main([str(config), "--out", str(tmp_path / "run")]) == 0
    with (tmp_path / "run" / "loss.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < np.mean(losses[:third])
    first = (tmp_path / "run" / "model" / "weights.safetensors").read_bytes()
    assert train.main([str(config), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "model" / "weights.safetensors").read_bytes() == first
    made = load_model(tmp_path / "run" / "model")
    assert made.scanner is not None
    assert (made.card["scan"]["steps"], made.card["scan"]["fields"]) == (2, 16)
    assert made.card["training"]["device"] == (torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
    # its few validation patches are of one class: nothing to judge by
    assert made.card["int8"]["validation"] == {"float": None, "int8": None}
    assert (made.card["int8"]["used"], made.card["test"]["auc_int8"], made.int8) == (False, None, {})


def test_a_version_is_not_trained_on_its_test_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "whole.toml"
    config.write_text('[data]\ntrain_stain = "brown"\nevery_fold = true\n')
    assert train.main([str(config), "--out", str(tmp_path / "run")]) == 2
    assert "data.every_fold is for studies" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_version_trained_before_gets_its_ranges(
    tmp_path: Path, small_network: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patches(tmp_path / "p.npz", n=60)
    data = {"folder": str(tmp_path), "patches": ["p.npz"], "hard_negatives": [], "validation_percent": 50}
    config = config_from_dict({"data": data, "train": {"regions_every": 0}, "network": dataclasses.asdict(SMALL)})
    old = {"evaluation": {"slides_standard": {}}, "test": {"auc": 0.5}}
    save_model(tmp_path / "old", state=small_network.state_dict(), config=config, version="old", card=old)
    assert quantise.main([str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--version", "new"]) == 0
    made, before = (load_model(tmp_path / name) for name in ("new", "old"))
    assert json.loads(capsys.readouterr().out)["sha256"] == made.sha256
    assert made.int8
    assert all(
        torch.equal(value, made.network.state_dict()[name]) for name, value in before.network.state_dict().items()
    )
    assert "evaluation" not in made.card  # it was measured in floats
    assert made.card["test"]["auc"] == 0.5
    assert 0 <= made.card["test"]["auc_int8"] <= 1


def test_a_version_trained_before_gets_a_network_that_scans(
    tmp_path: Path, small_network: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patches(tmp_path / "p.npz", n=60)
    data = {"folder": str(tmp_path), "patches": ["p.npz"], "hard_negatives": []}
    config = config_from_dict(
        {"data": data, "train": {"regions_every": 0, "region_px": 128}, "network": dataclasses.asdict(SMALL)}
    )
    old = {"evaluation": {"slides_standard": {}, "patches": {}}, "test": {"auc": 0.5}, "threshold": 0.7}
    save_model(tmp_path / "old", state=small_network.state_dict(), config=config, version="old", card=old)
    command = [str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--version", "new", "--steps", "2"]
    assert distil.main(command) == 0
    made, before = (load_model(tmp_path / name) for name in ("new", "old"))
    assert json.loads(capsys.readouterr().out)["sha256"] == made.sha256 != before.sha256
    assert made.scanner is not None
    assert made.scanner.int8
    assert all(
        torch.equal(value, made.network.state_dict()[name]) for name, value in before.network.state_dict().items()
    )
    assert made.card["evaluation"] == {"patches": {}}
    assert "threshold" not in made.card


def test_a_version_without_its_material_gets_no_ranges(
    tmp_path: Path, small_network: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_from_dict({"data": {"folder": str(tmp_path / "gone")}, "network": dataclasses.asdict(SMALL)})
    save_model(tmp_path / "old", state=small_network.state_dict(), config=config, version="old", card={})
    assert quantise.main([str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--version", "new"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "new").exists()
