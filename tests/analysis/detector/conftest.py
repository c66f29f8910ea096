"""Small networks and slides that the detector's tests share."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from analysis.detector.calibration import sigmoid
from analysis.detector.configuration import DetectorConfig, NetworkConfig, ReadConfig
from analysis.detector.engine import Engine, open_engine
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.pixel_source import ArraySource
from analysis.detector.validation_record import ValidationRecord, ValidationSlide
from analysis.detector.weights import LoadedModel, load_model, save_model

REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = NetworkConfig(pyramid_channels=16, tower_depth=1, dense_channels=16)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_network() -> Detector:
    """Untrained, but with statistics of its own inputs, so that its outputs differ from place to place."""
    torch.manual_seed(3)
    network = Detector(SMALL)
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(2, 3, 128, 128))
        network.eval()
        logit = network(to_input(tissue_like(256, 256, seed=9)[None])).tumour_logit
        # spread the answers, so that one cell in ten or so passes for tumour
        head = network.dense.head
        gain = 4.0 / logit.std()
        head.weight[0] *= gain
        head.bias[0] = gain * (head.bias[0] - logit.mean()) - 1.0
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def small_model(small_network: Detector, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Saved and loaded as every model is; its thresholds are so low that it finds something in noise."""
    folder = tmp_path_factory.mktemp("model")
    config = DetectorConfig(
        network=SMALL,
        read=ReadConfig(
            seed_probability=0.3,
            grow_probability=0.25,
            candidate_score=0.0,
            second_look=False,
            scan_score=0.05,
            scan_grow_probability=0.04,
            scan_stands_out=0.0,
            glance_score=0.0,
            give_up_score=0.0,
            box_score=0.0,
        ),
    )
    save_model(folder, state=small_network.state_dict(), config=config, version="small-1", card={"name": "small"})
    return load_model(folder)


def engine_or_skip(model: LoadedModel, name: str, *, workers: int = 1) -> Engine:
    if name == "openvino":
        # looked for, not imported: the engine has to import it first, without its telemetry
        if importlib.util.find_spec("openvino") is None:
            pytest.skip("needs pip install 'metadet[fast]'")
    return open_engine(model, name, workers=workers)


def tissue_like(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Purple noise that passes for stained tissue, with darker blotches."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(height // 32 + 1, width // 32 + 1)).repeat(32, 0).repeat(32, 1)[:height, :width]
    fine = rng.normal(size=(height, width, 3)) * 18
    base = np.array([150, 90, 150]) + coarse[..., None] * 14
    return np.clip(base + fine, 0, 255).astype(np.uint8)


@pytest.fixture
def noise_slide() -> ArraySource:
    """0.8 x 0.55 mm of tissue-like noise on glass, at 1 um/px."""
    rgb = np.full((640, 896, 3), 244, np.uint8)
    rgb[45:600, 50:850] = tissue_like(555, 800)
    return ArraySource(rgb, 1.0, 1.0)


def simulated_record(*, slides: int, seed: int) -> tuple[ValidationRecord, list[float]]:
    """Slides of a detector whose lesions are true with a known probability, and these probabilities in order.

    A slide has tumour exactly when one of its lesions is true.
    """
    rng = np.random.default_rng(seed)
    made, chances = [], []
    for n in range(slides):
        lesions = []
        for rank in range(1, int(rng.integers(1, 4)) + 1):
            score = float(rng.beta(2, 2))
            chance = sigmoid(2.0 * float(np.log(score / (1 - score))) - 1.0)
            chances.append(chance)
            hit = rank if rng.random() < chance else 0
            facts = {"score": score, "mean_p": score * 0.9, "peak_p": score, "area_mm2": float(rng.uniform(0.01, 1))}
            lesions.append({"rank": rank, **facts, "box_score": None, "hit": hit})
        truth = [{"label": le["hit"], "itc": False, "peak": le["peak_p"]} for le in lesions if le["hit"]]
        best = max(le["score"] for le in lesions)
        made.append(ValidationSlide(f"slide {n}", bool(truth), "complete", best, tuple(lesions), tuple(truth)))
    record = ValidationRecord(
        weights_sha256="w", profile="standard", read={"mpp": 1.0}, composed=True, slides=tuple(made), sha256="r" * 64
    )
    return record, chances


def scanned(rgb: NDArray[np.uint8], stain: str) -> NDArray[np.uint8]:
    """The tissue with 0.4 or 0.65 of its density in green as density in blue."""
    share = {"brown": 0.65, "purple": 0.4}[stain]
    out = rgb.copy()
    out[..., 2] = np.clip(256 * ((rgb[..., 1].astype(float) + 1) / 256) ** share - 1, 0, 255)
    return out
