"""The network in integers of 8 bits: what it says stays near, does not depend on the processor, and is refused when damaged."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from analysis.detector.configuration import DetectorConfig
from analysis.detector.engine import EngineUnavailable, OpenVinoEngine, TorchEngine, open_engine
from analysis.detector.network import eight_bit
from analysis.detector.network.backbone import SameConv
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.weights import LoadedModel, ModelRefused, load_model, save_model
from tests.analysis.detector.conftest import SMALL, engine_or_skip, tissue_like


@pytest.fixture(scope="module")
def ranges(small_network: Detector) -> dict[str, Tensor]:
    return eight_bit.measure(small_network, to_input(np.stack([tissue_like(192, 192, seed=s) for s in range(6)])))


@pytest.fixture(scope="module")
def model_in_8_bits(
    small_network: Detector, ranges: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    folder = tmp_path_factory.mktemp("in-8-bits")
    config = DetectorConfig(network=SMALL)
    save_model(folder, state=small_network.state_dict(), config=config, version="small-8", card={}, int8=ranges)
    return load_model(folder)


def map_of(network: Detector, rgb: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    with torch.inference_mode():
        return torch.sigmoid(network(to_input(rgb)).tumour_logit)[:, 0].numpy()


def test_folding_the_norms_changes_nothing(small_network: Detector) -> None:
    rgb = tissue_like(128, 192, seed=1)[None]
    fused = eight_bit.fused(small_network)
    assert np.abs(map_of(fused, rgb) - map_of(small_network, rgb)).max() < 1e-4
    norms = [m for n, m in fused.named_modules() if isinstance(m, nn.BatchNorm2d) and n.startswith(eight_bit.QUANTISED)]
    assert norms == []


@pytest.mark.parametrize(
    "changes", [{"heads": "mask"}, {"heads": "box"}, {"dense_stride": 8}, {"backbone": "resnet18"}]
)
def test_every_network_can_be_measured_and_read(changes: dict[str, Any]) -> None:
    torch.manual_seed(4)
    network = Detector(dataclasses.replace(SMALL, **changes)).eval().requires_grad_(False)
    rgb = tissue_like(128, 128, seed=2)[None]
    rounded = eight_bit.quantised(network, eight_bit.measure(network, to_input(rgb)))
    assert map_of(rounded, rgb).shape == map_of(network, rgb).shape
    assert any(isinstance(module, eight_bit.EightBitConv) for module in rounded.modules())


def test_8_bits_say_nearly_what_floats_say(small_network: Detector, ranges: dict[str, Tensor]) -> None:
    rgb = np.stack([tissue_like(192, 192, seed=s) for s in (20, 21)])
    plain, rounded = map_of(small_network, rgb), map_of(eight_bit.quantised(small_network, ranges), rgb)
    difference = np.abs(plain - rounded)
    assert 0 < difference.mean() < 0.03  # rounded for certain, and not by much
    assert np.corrcoef(plain.ravel(), rounded.ravel())[0, 1] > 0.98


def test_the_mean_of_each_channel_is_kept(small_network: Detector, ranges: dict[str, Tensor]) -> None:
    """Rounding moves it; the bias brings it back."""
    images = to_input(np.stack([tissue_like(192, 192, seed=s) for s in range(6)]))
    uncorrected = {name: value.clone() for name, value in ranges.items()}
    fused = eight_bit.fused(small_network)
    for name in ranges:
        if name.endswith(".bias"):
            bias = fused.get_submodule(name.removesuffix(".bias")).bias
            uncorrected[name] = torch.zeros_like(ranges[name]) if bias is None else bias
    with torch.inference_mode():
        expected = fused.backbone(images)[-1].mean(dim=(0, 2, 3))
        with_it, without = (
            eight_bit.quantised(small_network, r).backbone(images)[-1].mean(dim=(0, 2, 3))
            for r in (ranges, uncorrected)
        )
    assert (with_it - expected).abs().mean() < 0.5 * (without - expected).abs().mean()


def test_openvino_computes_what_the_imitation_says(model_in_8_bits: LoadedModel) -> None:
    """Sums that do not fit 16 bits would be cut off without a word on processors without VNNI."""
    engine = engine_or_skip(model_in_8_bits, "openvino-int8")
    assert engine.name.endswith(" int8")
    rgb = np.stack([tissue_like(256, 320, seed=s) for s in (1, 2)])
    imitation = map_of(eight_bit.quantised(model_in_8_bits.network, model_in_8_bits.int8), rgb)
    computed = engine.read(rgb).probability
    # an untrained network makes much of a step of 255; with sums cut off these are 0.1 and 0.7
    assert np.corrcoef(computed.ravel(), imitation.ravel())[0, 1] > 0.95
    assert np.abs(computed - imitation).mean() < 0.06


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 6.0), (-3.7, 9.1), (0.0, 0.0), (-2.0, -1.0)])
def test_numbers_of_steps_say_all_that_rounding_leaves(low: float, high: float) -> None:
    steps = eight_bit.Steps.of(low, high)
    x = torch.linspace(low - 1, high + 1, 5001)
    numbers = steps.packed(x)
    assert numbers.dtype == torch.uint8
    unpacked = steps.unpacked(numbers)
    # half a step may fall to either side: the numbers are of x in steps, rounded in another order of the same sums
    half_way = (x / steps.scale).frac().abs().sub(0.5).abs() < 1e-3
    assert torch.allclose(unpacked[~half_way], steps.rounded(x)[~half_way], atol=1e-5 * max(1.0, abs(low), abs(high)))
    assert torch.equal(steps.packed(unpacked), numbers)  # a second rounding changes nothing


@pytest.mark.parametrize(
    "changes",
    [{"heads": "mask"}, {"dense_stride": 8}, {"backbone": "resnet18"}, {"backbone": "efficientnet-lite0-half"}],
)
def test_what_goes_between_the_parts_is_what_all_that_look_at_it_round_it_to(changes: dict[str, Any]) -> None:
    torch.manual_seed(4)
    network = Detector(dataclasses.replace(SMALL, **changes)).eval().requires_grad_(False)
    images = to_input(tissue_like(128, 128, seed=2)[None])
    rounded = eight_bit.quantised(network, eight_bit.measure(network, images))
    seen: list[tuple[Tensor, eight_bit.Steps]] = []
    for module in rounded.modules():
        if isinstance(module, eight_bit.EightBitConv):
            module.register_forward_pre_hook(lambda module, given: seen.append((given[0], module.steps)))
    between = eight_bit.steps_between(rounded)
    maps = rounded.backbone(images)
    rounded.pyramid(maps[rounded.unused_maps :])
    assert len(between) == len(maps)
    for one, steps in zip(maps, between, strict=True):
        takers = {of for given, of in seen if given is one}
        assert takers == {steps}


def test_a_map_that_is_not_rounded_alike_stays_in_floats(small_network: Detector, ranges: dict[str, Tensor]) -> None:
    assert eight_bit.steps_between(eight_bit.fused(small_network)) == [None] * len(small_network.backbone.out_channels)
    other = {**ranges, "pyramid.lateral.1.range": ranges["pyramid.lateral.1.range"] * 2}
    between = eight_bit.steps_between(eight_bit.quantised(small_network, other))
    assert [steps is None for steps in between] == [i == 1 + small_network.unused_maps for i in range(len(between))]


def test_sums_of_two_products_fit_16_bits() -> None:
    conv = SameConv(2, 1, 1)
    nn.init.constant_(conv.weight, 3.0)
    eight = eight_bit.EightBitConv(conv, -1.0, 1.0)
    steps = (conv.weight.detach() / eight.weight_scale).round().abs().max()
    assert 2 * 255 * steps <= 2**15 - 1


def test_padding_is_that_of_the_convolution() -> None:
    torch.manual_seed(2)
    conv = SameConv(3, 8, 5, stride=2)
    x = torch.rand(1, 3, 32, 32) + 1.0  # zero is not among the values: only padding brings it in
    difference = eight_bit.EightBitConv(conv, 1.0, 2.0)(x) - conv(x)
    assert difference.shape == (1, 8, 16, 16)
    assert difference.abs().max() < 0.05


def test_auto_reads_in_8_bits_where_the_model_carries_ranges(
    model_in_8_bits: LoadedModel, small_model: LoadedModel
) -> None:
    engine_or_skip(model_in_8_bits, "openvino")
    assert open_engine(model_in_8_bits, "auto", workers=1).name.endswith(" int8")
    assert "int8" not in open_engine(small_model, "auto", workers=1).name
    assert "int8" not in open_engine(model_in_8_bits, "openvino", workers=1).name
    assert isinstance(open_engine(model_in_8_bits, "auto", workers=1), OpenVinoEngine)


def test_torch_reads_a_model_with_ranges_in_floats(model_in_8_bits: LoadedModel, small_model: LoadedModel) -> None:
    rgb = tissue_like(128, 128, seed=3)[None]
    one, two = (TorchEngine(m.network, workers=1).read(rgb).probability for m in (model_in_8_bits, small_model))
    assert np.array_equal(one, two)


def test_a_model_without_ranges_is_not_read_in_8_bits(small_model: LoadedModel) -> None:
    with pytest.raises(EngineUnavailable, match="no 8-bit ranges"):
        open_engine(small_model, "openvino-int8", workers=1)


def _without(ranges: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    last = [name for name in ranges if name.endswith(part)][-1]
    return {name: value for name, value in ranges.items() if name != last}


def _with(ranges: dict[str, Tensor], part: str, value: Tensor) -> dict[str, Tensor]:
    last = [name for name in ranges if name.endswith(part)][-1]
    return {**ranges, last: value}


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: _without(r, ".range"),
        lambda r: _without(r, ".bias"),
        lambda r: {**r, "towers.range": torch.zeros(2)},
        lambda r: _with(r, ".range", torch.zeros(3)),
        lambda r: _with(r, ".range", torch.tensor([1.0, -1.0])),
        lambda r: _with(r, ".range", torch.tensor([0.0, float("inf")])),
        lambda r: _with(r, ".bias", torch.zeros(1)),
        lambda r: _with(
            r, ".bias", torch.full_like([v for n, v in r.items() if n.endswith(".bias")][-1], float("nan"))
        ),
    ],
    ids=["no range", "no bias", "one more", "three limits", "upside down", "endless", "short bias", "no number"],
)
def test_damaged_ranges_are_refused(damage, small_network: Detector, ranges: dict[str, Tensor], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = DetectorConfig(network=SMALL)
    save_model(
        tmp_path, state=small_network.state_dict(), config=config, version="d", card={}, int8=damage(dict(ranges))
    )
    with pytest.raises(ModelRefused, match="8-bit"):
        load_model(tmp_path)


def test_the_ranges_lie_beside_the_weights_in_one_file(
    small_network: Detector, ranges: dict[str, Tensor], tmp_path: Path
) -> None:
    config = DetectorConfig(network=SMALL)
    plain = save_model(tmp_path / "a", state=small_network.state_dict(), config=config, version="a", card={})
    with_ranges = save_model(
        tmp_path / "b", state=small_network.state_dict(), config=config, version="b", card={}, int8=ranges
    )
    assert plain != with_ranges  # other results: another model version
    stored = load_file(tmp_path / "b" / "weights.safetensors")
    assert {n.removeprefix("int8.") for n in stored if n.startswith("int8.")} == set(ranges)
    again = load_model(tmp_path / "b").int8
    assert all(torch.equal(again[name], ranges[name]) for name in ranges)
