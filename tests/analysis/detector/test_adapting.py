"""A network gets used to other tissue without a label."""

import numpy as np
import pytest
import torch

from analysis.detector.configuration import config_from_dict
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.adapting import FEWEST, SHARE, adapted
from tests.analysis.detector.conftest import tissue_like

SIZES = {"pyramid_channels": 16, "tower_depth": 1, "dense_channels": 16}


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    whole = tissue_like(1536, 1536)
    return np.stack([whole[y : y + 96, x : x + 96] for y in range(0, 1440, 96) for x in range(0, 1440, 96)])


@pytest.fixture(scope="module")
def network() -> Detector:
    torch.manual_seed(1)
    return Detector(config_from_dict({"network": SIZES}).network).eval()


def test_it_goes_half_of_the_way_to_what_it_sees_and_no_weight_changes(network: Detector, patches: np.ndarray) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = adapted(network, patches, patch_mpp=1.0, mpp=1.0, rng=np.random.default_rng(0))
    conv, norm = own.backbone.stem[0], own.backbone.stem[1]
    with torch.no_grad():
        seen = conv(to_input(patches))
    wanted = SHARE * seen.mean(dim=(0, 2, 3)) + (1 - SHARE) * before["backbone.stem.1.running_mean"]
    torch.testing.assert_close(norm.running_mean, wanted, atol=0.02, rtol=0.05)
    assert not torch.equal(norm.running_var, before["backbone.stem.1.running_var"])
    for name, value in own.state_dict().items():
        assert "running_" in name or "num_batches" in name or torch.equal(value, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part.training for part in own.modules())
    assert [m.momentum for m in own.modules() if hasattr(m, "momentum")] == [
        m.momentum for m in network.modules() if hasattr(m, "momentum")
    ]


def test_a_few_patches_are_too_few(network: Detector, patches: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"there must be {FEWEST}"):
        adapted(network, patches[:50], patch_mpp=1.0, mpp=1.0, rng=np.random.default_rng(0))
