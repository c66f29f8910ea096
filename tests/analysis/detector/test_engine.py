"""The two engines say the same, and a box is looked for only where it can count."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from analysis.detector.configuration import BACKBONES, NetworkConfig
from analysis.detector.engine import PARITY, EngineUnavailable, OpenVinoEngine, TorchEngine, open_engine
from analysis.detector.influence import differences, margin_for
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.weights import LoadedModel
from tests.analysis.detector.conftest import engine_or_skip, tissue_like


def test_the_engines_agree(small_model: LoadedModel) -> None:
    rgb = np.stack([tissue_like(256, 320, seed=s) for s in (1, 2)])
    one, two = (engine_or_skip(small_model, name) for name in ("torch", "openvino"))
    a, b = one.read(rgb, margin_px=64), two.read(rgb, margin_px=64)
    assert a.probability.shape == (2, 32, 48)
    assert a.probability.std() > 0.02  # the maps differ from place to place
    assert np.abs(a.probability - b.probability).max() <= PARITY
    boxes, other = one.boxes(rgb[1]), two.boxes(rgb[1])
    assert len(boxes) == len(other) > 0
    # nearly equal scores may stand in another order: each box has its own partner
    gaps = np.abs(boxes[:, None] - other[None]).max(axis=2)
    assert (gaps.min(axis=1) <= 1e-2).all()
    assert len(set(gaps.argmin(axis=1).tolist())) == len(boxes)


def test_openvino_does_not_report_its_use_to_its_maker(small_model: LoadedModel) -> None:
    pytest.importorskip("openvino.tools.ovc", reason="needs pip install 'metadet[fast]'")
    from openvino.tools.ovc import telemetry_utils

    OpenVinoEngine(small_model.network, workers=1)
    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


ENGINES_COME_AND_GO = """
import signal
from analysis.detector.configuration import NetworkConfig
from analysis.detector.engine import OpenVinoEngine
from analysis.detector.network.detector import Detector

engines = [OpenVinoEngine(Detector(NetworkConfig(attention="none", heads="mask")).eval(), workers=1) for _ in range(2)]
while engines:
    del engines[0]
signal.signal(signal.SIGINT, lambda number, frame: print("caught"))
signal.raise_signal(signal.SIGINT)
"""


def test_a_signal_is_caught_after_engines_were_freed_in_the_order_in_which_they_were_made() -> None:
    pytest.importorskip("openvino", reason="needs pip install 'metadet[fast]'")
    done = subprocess.run([sys.executable, "-c", ENGINES_COME_AND_GO], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "caught"), done.stderr


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_margin_only_cuts(small_model: LoadedModel, name: str) -> None:
    engine = engine_or_skip(small_model, name)
    rgb = tissue_like(384, 384, seed=4)[None]
    whole, cut = engine.read(rgb).probability, engine.read(rgb, margin_px=96).probability
    assert np.abs(whole[:, 24:-24, 24:-24] - cut).max() <= PARITY


def test_the_same_model_gives_the_same_engine(small_model: LoadedModel) -> None:
    assert open_engine(small_model, "torch", workers=1) is open_engine(small_model, "torch", workers=1)


def test_an_unknown_engine_is_refused(small_model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="torch"):
        open_engine(small_model, "abacus")
    assert issubclass(EngineUnavailable, RuntimeError)


def test_influence_falls_to_nothing_far_from_a_cut(small_model: LoadedModel) -> None:
    worst = differences(open_engine(small_model, "torch", workers=1), tissue_like(1152, 1152, seed=5))
    assert worst[0] > 1e-3
    assert worst[-1] < 1e-3
    assert (np.diff(worst) <= 0).all()
    assert 32 <= margin_for(worst, 1e-3) <= 320


@pytest.mark.parametrize(("backbone", "stride"), [*((name, 4) for name in BACKBONES), ("efficientnet-lite0", 8)])
def test_strips_give_what_the_whole_window_gives(backbone: str, stride: int) -> None:
    torch.manual_seed(1)
    config = NetworkConfig(
        backbone=backbone, pyramid_channels=16, tower_depth=1, dense_channels=16, dense_stride=stride
    )
    network = Detector(config).eval()
    side = 832
    rgb = tissue_like(side, 128, seed=6)[None]
    with torch.inference_mode():
        whole = network(to_input(rgb))
        maps = network.backbone(to_input(rgb))[network.unused_maps :]
    engine = TorchEngine(network, workers=1)
    for mine, expected in zip(engine.maps(rgb), maps, strict=True):
        assert np.abs(mine.transpose(0, 3, 1, 2) - expected.numpy()).max() <= 1e-4 * expected.abs().max()
    reading = engine.read(rgb)
    assert reading.probability.shape == (1, side // stride, 128 // stride)
    assert np.abs(reading.probability - torch.sigmoid(whole.tumour_logit)[:, 0].numpy()).max() <= 1e-4
