"""A tiny real network as a model folder, and sets to measure it on."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box

from analysis.detector.annotations import write_asap
from analysis.detector.configuration import DetectorConfig, ReadConfig
from analysis.detector.network.detector import Detector
from analysis.detector.weights import save_model
from tests.analysis.detector.conftest import SMALL
from tests.analysis.detector.test_patch_file import write_patches
from tests.slides.conftest import write_slide

CONFIG = DetectorConfig(network=SMALL, read=ReadConfig(seed_probability=0.3, grow_probability=0.25))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path: Path, settings: Any) -> Path:
    """An installation of its own."""
    settings.METADET_HOME = tmp_path / "home"
    settings.HEARTBEAT_SECONDS = 3600  # its thread has a connection of its own, which cannot see a test's transaction
    settings.METADET_HOME.mkdir()
    return Path(settings.METADET_HOME)


@pytest.fixture
def model_files(tmp_path: Path) -> Callable[..., Path]:
    """model_files("2", seed=2): a folder with untrained weights and their card."""

    def make(version: str = "1", *, seed: int = 1, card: dict[str, Any] | None = None) -> Path:
        torch.manual_seed(seed)
        folder = tmp_path / f"made-{version}-{seed}"
        save_model(
            folder,
            state=Detector(SMALL).state_dict(),
            config=CONFIG,
            version=version,
            card={"name": "small"} if card is None else card,
        )
        return folder

    return make


@pytest.fixture
def patch_set(tmp_path: Path, settings: Any) -> Path:
    """Labelled patches, eight of them in the fold that training keeps aside."""
    path = write_patches(tmp_path / "some_patches.npz", n=18, fold=np.array([4] * 12 + [0] * 6, np.int8))
    settings.EVALUATION_PATCHES = path
    return path


@pytest.fixture
def slide_set(tmp_path: Path, settings: Any) -> Path:
    """Two slides: one with an outlined lesion, one without."""
    folder = write_slide_set(tmp_path / "two_slides", normal=["without"])
    settings.EVALUATION_SLIDES = [folder]
    return folder


def write_slide_set(folder: Path, *, normal: list[str]) -> Path:
    """As CAMELYON16 lays them out: `with.tif` has an outlined lesion, those of `normal` have none."""
    folder.mkdir()
    write_slide(folder / "with.tif", seed=1, mpp=1.0)
    write_asap(folder / "with.xml", [box(250, 200, 420, 380)])
    rows = [["image", "type"], ["with.tif", "tumor"]]
    for seed, name in enumerate(normal, start=2):
        write_slide(folder / f"{name}.tif", seed=seed, mpp=1.0)
        rows.append([f"{name}.tif", "normal"])
    with (folder / "reference.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
