"""The small network that scans for `fast`: where it begins, what it is taught, and that its word decides what is read."""

import copy
import dataclasses
import gc
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.detector import distil
from analysis.detector.calibration import logit, sigmoid
from analysis.detector.card import WEIGHTS_NAME, file_sha256, read_card
from analysis.detector.configuration import DetectorConfig, ReadConfig, ScanConfig
from analysis.detector.engine import PARITY, open_engine
from analysis.detector.evaluate import scan_alone
from analysis.detector.infer import detect
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.patch_file import PatchSet
from analysis.detector.pixel_source import ArraySource
from analysis.detector.training import distillation, scan_network
from analysis.detector.training.material import Material, no_patches
from analysis.detector.weights import LoadedModel, ModelRefused, load_model, save_model, write_card
from tests.analysis.detector.conftest import SMALL, engine_or_skip, tissue_like

READ = ReadConfig(
    seed_probability=0.3,
    grow_probability=0.25,
    candidate_score=0.0,
    second_look=False,
    scan_stands_out=0.0,
    glance_score=0.0,
    give_up_score=0.0,
    box_score=0.0,
    most_above_scan=20.0,
)
SCAN = ScanConfig(steps=20, pyramid_channels=8, dense_channels=8)


def saying(small: Detector, probability: float) -> Detector:
    """The same network, which says the same of every place."""
    state = small.state_dict()
    state["dense.head.weight"] = torch.zeros_like(state["dense.head.weight"])
    state["dense.head.bias"] = torch.full_like(state["dense.head.bias"], math.log(probability / (1 - probability)))
    small.load_state_dict(state)
    return small.eval()


def seeing_green(model: LoadedModel, **changes: Any) -> LoadedModel:
    """The same weights, of a network that may look at green alone."""
    network = dataclasses.replace(model.config.network, colours="green")
    train = dataclasses.replace(model.config.train, region_px=128)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, network=network, train=train, **changes))


def saved(folder: Path, network: Detector, scanner: Detector, *, int8: dict[str, Tensor] | None = None) -> LoadedModel:
    config = DetectorConfig(network=SMALL, read=READ, scan=SCAN)
    state = (scanner.state_dict(), int8 or {})
    save_model(folder, state=network.state_dict(), config=config, version="scanned", card={}, scanner=state)
    return load_model(folder)


@pytest.fixture(scope="module")
def patches() -> PatchSet:
    rgb = np.stack([tissue_like(96, 96, seed=s) for s in range(12)])
    n = len(rgb)
    return PatchSet(
        rgb=rgb,
        ids=np.array([str(i) for i in range(n)]),
        label=np.full(n, -1, np.int8),
        stain=np.array(["brown", "purple"] * (n // 2)),
        fold=np.zeros(n, np.int8),
        white=np.zeros(n, np.float32),
    )


@pytest.fixture(scope="module")
def material(patches: PatchSet) -> Material:
    return dataclasses.replace(no_patches(), unlabelled=patches)


# -- reading with it -----------------------------------------------------------------------------------------------------


def test_where_the_scan_network_finds_nothing_fast_reads_nothing_again(
    small_network: Detector, noise_slide: ArraySource, tmp_path: Path
) -> None:
    model = saved(tmp_path, small_network, saying(Detector(SCAN.network), 0.01))
    assert len(detect(noise_slide, model).lesions) > 0
    found = detect(noise_slide, model, profile="fast")
    assert found.lesions == ()
    assert set(np.unique(found.heatmap)) == {0, round(0.01 * READ.grow_probability * 255)}


def test_where_it_suspects_everything_fast_finds_what_standard_finds(
    small_network: Detector, noise_slide: ArraySource, tmp_path: Path
) -> None:
    model = saved(tmp_path, small_network, saying(Detector(SCAN.network), 0.99))
    standard, fast = (detect(noise_slide, model, profile=profile) for profile in ("standard", "fast"))
    assert fast.lesions == standard.lesions
    assert np.array_equal(fast.heatmap, standard.heatmap)
    assert len(fast.features) == SCAN.pyramid_channels  # what the first network over the tissue sees
    assert len(standard.features) == SMALL.pyramid_channels


def test_what_the_scan_does_not_see_standard_hardly_believes(
    small_network: Detector, noise_slide: ArraySource, tmp_path: Path
) -> None:
    blind = saved(tmp_path, small_network, saying(Detector(SCAN.network), 0.01))
    config = dataclasses.replace(blind.config, read=dataclasses.replace(READ, most_above_scan=1.0))
    doubted = detect(noise_slide, dataclasses.replace(blind, config=config))
    trusted = detect(noise_slide, dataclasses.replace(blind, config=config, scanner=None))
    assert np.array_equal(doubted.heatmap, trusted.heatmap)
    assert {lesion.peak for lesion in doubted.lesions} == {lesion.peak for lesion in trusted.lesions}
    assert max(lesion.score for lesion in trusted.lesions) > 0.3
    assert max(lesion.score for lesion in doubted.lesions) == pytest.approx(sigmoid(logit(0.01) + 1.0), abs=2e-3)


def test_a_model_without_one_scans_by_itself(small_model: LoadedModel) -> None:
    engine = open_engine(small_model, "torch", workers=1)
    assert small_model.scanner is None
    assert engine.scanner is engine
    assert scan_alone(small_model).network is small_model.network


def test_a_scan_alone_is_read_by_the_scan_network(
    small_network: Detector, noise_slide: ArraySource, tmp_path: Path
) -> None:
    """What `evaluate slides --scan` records for the limit of suspicion."""
    alone = scan_alone(saved(tmp_path, small_network, saying(Detector(SCAN.network), 0.6)))
    assert alone.config.read.mpp == READ.scan_mpp
    assert set(np.unique(detect(noise_slide, alone).heatmap)) == {0, round(0.6 * 255)}


def test_the_engines_scan_alike(small_network: Detector, tmp_path: Path) -> None:
    torch.manual_seed(5)
    small = Detector(SCAN.network).eval()
    model = saved(tmp_path, small_network, small)
    rgb = tissue_like(256, 256, seed=4)[None]
    by_torch = open_engine(model, "torch", workers=1).scanner.read(rgb, margin_px=64).probability
    by_openvino = engine_or_skip(model, "openvino").scanner.read(rgb, margin_px=64).probability
    assert by_torch.shape == (1, 16, 16)
    assert np.abs(by_torch - by_openvino).max() < PARITY


# -- its files -----------------------------------------------------------------------------------------------------------


def test_it_is_kept_with_the_weights_and_under_their_digest(small_network: Detector, tmp_path: Path) -> None:
    torch.manual_seed(6)
    small = Detector(SCAN.network).eval()
    model = saved(tmp_path, small_network, small)
    assert model.scanner is not None
    assert model.scanner.sha256 == model.sha256
    for name, value in model.scanner.network.state_dict().items():
        assert torch.equal(value, small.state_dict()[name]), name


def test_an_engine_goes_when_nothing_holds_it_any_more(small_network: Detector, tmp_path: Path) -> None:
    """Not when the collector next runs, in whatever thread that is: OpenVINO's objects do not bear it."""
    for scans in (True, False):
        model = saved(tmp_path, copy.deepcopy(small_network), Detector(SCAN.network))
        engine = weakref.ref(open_engine(dataclasses.replace(model, scanner=model.scanner if scans else None), "torch"))
        assert engine() is not None
        gc.disable()
        try:
            del model
            assert engine() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_a_damaged_one_is_refused(small_network: Detector, tmp_path: Path, damage: str) -> None:
    saved(tmp_path, small_network, Detector(SCAN.network))
    tensors = load_file(tmp_path / WEIGHTS_NAME)
    if damage == "missing":
        del tensors["scan.dense.head.bias"]
    else:
        tensors["scan.dense.head.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / WEIGHTS_NAME)
    content = read_card(tmp_path)
    write_card(tmp_path, {**content, "sha256": file_sha256(tmp_path / WEIGHTS_NAME)})
    with pytest.raises(ModelRefused, match="do not fit the network"):
        load_model(tmp_path)


# -- learning ------------------------------------------------------------------------------------------------------------


def test_with_room_for_every_channel_it_begins_as_the_trained_network(small_network: Detector) -> None:
    torch.manual_seed(7)
    same = distillation.begin_with(small_network, Detector(dataclasses.replace(SMALL, heads="mask")))
    for name, value in same.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, small_network.backbone.state_dict()[name]), name


def test_with_half_the_room_the_weightiest_channels_are_kept(small_network: Detector) -> None:
    half = distillation.begin_with(small_network, Detector(SCAN.network))
    whole_norm, half_norm = small_network.backbone.stem[1], half.backbone.stem[1]  # type: ignore[index,union-attr]
    kept = sorted(whole_norm.weight.abs().topk(16).indices.tolist())
    assert torch.equal(half_norm.weight, whole_norm.weight[kept])
    assert torch.equal(half.backbone.stem[0].weight, small_network.backbone.stem[0].weight[kept])  # type: ignore[index,union-attr]


@pytest.mark.parametrize("dense_stride", [4, 8])
def test_it_is_taught_the_strongest_word_of_the_reading_in_each_cell(
    small_model: LoadedModel, material: Material, dense_stride: int
) -> None:
    config = dataclasses.replace(small_model.config, scan=SCAN)
    torch.manual_seed(9)
    network = small_model.network if dense_stride == 4 else Detector(dataclasses.replace(SMALL, dense_stride=8)).eval()
    engine = open_engine(dataclasses.replace(small_model, network=network), "torch", workers=1)
    rng = np.random.default_rng(3)
    field = next(scan_network.taught_fields(engine, material, config, rng, count=1, stride=8))
    assert field.rgb.shape == (160, 160, 3)
    assert field.target.shape == (20, 20)
    (rgb,) = distillation.training_fields(material, config, np.random.default_rng(3), count=1)
    p = engine.read(rgb[None]).probability[0]
    n = 8 // dense_stride  # of its values in a cell of the whole-slide map; four of those make one of the scan's
    by_hand = max(p[y * n : (y + 1) * n, x * n : (x + 1) * n].mean() for y in (4, 5) for x in (6, 7))
    assert field.target[2, 3] == pytest.approx(by_hand, abs=1e-6)


def test_it_learns_what_it_is_taught(small_model: LoadedModel, material: Material, tmp_path: Path) -> None:
    """From tissue without any label, of a teacher that says the same of all tissue."""
    said = 0.99
    train = dataclasses.replace(small_model.config.train, region_px=128)
    scan = dataclasses.replace(SCAN, steps=60, most_fields=16)
    teacher = dataclasses.replace(
        small_model,
        network=saying(copy.deepcopy(small_model.network), said),
        config=dataclasses.replace(small_model.config, train=train, scan=scan),
    )
    torch.manual_seed(8)
    untaught = distillation.begin_with(small_model.network, Detector(SCAN.network)).train()
    with torch.no_grad():
        p = torch.sigmoid(untaught.trunk(to_input(tissue_like(128, 128, seed=50)[None]))[1]).mean().item()
    (state, ranges), card = scan_network.learn(teacher, material, seed=8)
    assert (card["steps"], card["fields"]) == (60, 16)
    assert card["loss"] < 0.7 * -math.log(p)
    taught = Detector(SCAN.network)
    taught.load_state_dict(state)
    model = saved(tmp_path, small_model.network, taught, int8=ranges)
    assert model.scanner is not None
    assert model.scanner.int8.keys() == ranges.keys()


def test_of_a_network_that_sees_green_alone_it_learns_from_green_alone(
    small_model: LoadedModel, material: Material
) -> None:
    teacher = seeing_green(small_model, scan=dataclasses.replace(SCAN, steps=2, most_fields=16))
    (state, _), _ = scan_network.learn(teacher, material, seed=8)
    first = state["backbone.stem.0.weight"]
    assert first[:, 1].any()
    assert not first[:, [0, 2]].any()


def test_it_learns_from_colours_that_are_mixed_as_in_the_training(small_model: LoadedModel, material: Material) -> None:
    states = []
    for mixing in (0.0, 0.3):
        train = dataclasses.replace(small_model.config.train, region_px=128, colour_mixing=mixing)
        scan = dataclasses.replace(SCAN, steps=2, most_fields=16)
        config = dataclasses.replace(small_model.config, train=train, scan=scan)
        (state, _), _ = scan_network.learn(dataclasses.replace(small_model, config=config), material, seed=8)
        states.append(state)
    assert not torch.equal(states[0]["backbone.stem.0.weight"], states[1]["backbone.stem.0.weight"])


def test_what_was_measured_on_slides_is_left_out_of_the_card_and_what_patches_say_is_kept() -> None:
    """Both profiles ask the scan."""
    card: dict[str, Any] = {"test": {"auc": 0.9}, "suspicion": {}, "threshold": 0.8, "evaluation": {"patches": 1}}
    card["evaluation"] |= {"slides_standard": 2, "slides_fast": 3}
    card["calibration"] = card["drift_reference"] = {"standard": {}, "fast": {}}
    assert distil.without_slides(card) == {"test": card["test"], "evaluation": {"patches": 1}}
