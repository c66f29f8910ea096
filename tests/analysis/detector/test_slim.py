"""A leaner network that reads: where it begins, what it is taught, and what becomes of the one that read before."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analysis.detector import slim
from analysis.detector.configuration import DetectorConfig, LookConfig, ReadConfig, config_from_dict
from analysis.detector.engine import PARITY, open_engine
from analysis.detector.infer import detect
from analysis.detector.network.backbone import LEAN_LITE, InvertedResidual
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.patch_file import PatchSet
from analysis.detector.pixel_source import ArraySource
from analysis.detector.second_look import all_looks, second_score
from analysis.detector.training import distillation, lean_network
from analysis.detector.training.material import Material, no_patches
from analysis.detector.turning import turn, turn_back
from analysis.detector.weights import LoadedModel, load_model, save_model
from tests.analysis.detector.conftest import SMALL, engine_or_skip, tissue_like
from tests.analysis.detector.test_patch_file import write_patches
from tests.analysis.detector.test_scan_network import material, patches, seeing_green  # noqa: F401

READ = ReadConfig(
    seed_probability=0.3,
    grow_probability=0.25,
    candidate_score=0.0,
    scan_stands_out=0.0,
    glance_score=0.0,
    second_look=False,
)


@pytest.mark.parametrize("which", range(8))
def test_what_was_turned_is_turned_back(which: int) -> None:
    picture = np.arange(4 * 4 * 3).reshape(4, 4, 3)
    assert np.array_equal(turn_back(turn(picture, which), which), picture)


def halved_in_effect(network: Detector) -> Detector:
    """Half of the channels inside its blocks say nothing, every other one."""
    network = copy.deepcopy(network)
    for block in network.backbone.modules():
        if isinstance(block, InvertedResidual):
            norms = [layer for layer in block.body if isinstance(layer, nn.BatchNorm2d)]
            for norm in norms[:-1] if len(norms) == 3 else []:
                norm.weight[::2], norm.bias[::2] = 0.0, 0.0
    return network


def test_it_begins_with_the_channels_that_say_something(small_network: Detector) -> None:
    torch.manual_seed(5)
    at_stride_8 = Detector(dataclasses.replace(SMALL, dense_stride=8)).eval().requires_grad_(False)
    at_stride_8.backbone.load_state_dict(small_network.backbone.state_dict())
    at_stride_8.dense.head.weight *= 100
    teacher = halved_in_effect(at_stride_8)
    begun = distillation.begin_with(teacher, Detector(lean_network.lean_network(teacher.config))).eval()
    x = to_input(tissue_like(128, 128, seed=6)[None])
    with torch.no_grad():
        ours, theirs, whole = (network.trunk(x)[1] for network in (begun, teacher, at_stride_8))
    assert torch.allclose(ours, theirs, atol=5e-3)
    assert (theirs - whole).abs().max() > 0.05, "else the half that was taken away did nothing before"


def test_a_teacher_of_another_kind_leaves_it_as_it_is(small_network: Detector) -> None:
    torch.manual_seed(5)
    lean = Detector(lean_network.lean_network(SMALL))
    before = copy.deepcopy(lean.state_dict())
    resnet = Detector(dataclasses.replace(SMALL, backbone="resnet18"))
    after = distillation.begin_with(resnet, lean).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_it_is_taught_the_mean_of_all_turns_in_each_cell(
    small_model: LoadedModel,
    material: Material,  # noqa: F811
) -> None:
    engine = open_engine(small_model, "torch", workers=2)
    config, rng = small_model.config, np.random.default_rng(3)
    first, second = lean_network.taught_fields([engine], material, config, rng, count=2)
    fields = list(distillation.training_fields(material, config, np.random.default_rng(3), count=2))
    assert np.array_equal(first.rgb, fields[0])
    assert np.array_equal(second.rgb, fields[1])
    assert first.target.shape == (len(fields[0]) // 8,) * 2
    said = []
    for mirrored in (False, True):
        for quarter in range(4):
            seen = np.rot90(fields[0], quarter)
            p = engine.read((seen[:, ::-1] if mirrored else seen)[None].copy()).probability[0]
            p = np.rot90(p[:, ::-1] if mirrored else p, -quarter)
            said.append(p[2 * 5 : 2 * 6, 2 * 9 : 2 * 10].mean())
    assert np.ptp(said) > 0.01, "else one turn would do"
    assert first.target[5, 9] == pytest.approx(np.mean(said), abs=1e-5)


def test_of_two_teachers_it_is_taught_the_mean_in_log_odds(
    small_model: LoadedModel,
    material: Material,  # noqa: F811
    tmp_path: Path,
) -> None:
    torch.manual_seed(8)
    other = Detector(dataclasses.replace(SMALL, dense_stride=8)).eval()
    look = LookConfig("two", other.config)
    config, state = dataclasses.replace(small_model.config, look=look), small_model.network.state_dict()
    save_model(tmp_path, state=state, config=config, version="both", card={}, looker=(other.state_dict(), {}))
    both = load_model(tmp_path)
    engine = open_engine(both, "torch", workers=1)
    teachers = lean_network.teachers_of(engine)
    assert teachers == engine.lookers
    assert len(teachers) == 2
    config = small_model.config
    one, two, mean = (
        next(lean_network.taught_fields(some, material, config, np.random.default_rng(3), count=1)).target
        for some in (teachers[:1], teachers[1:], teachers)
    )
    assert np.abs(one - two).max() > 0.1, "else one teacher would do"
    odds = np.sqrt(one / (1 - one) * two / (1 - two))
    assert mean == pytest.approx(odds / (1 + odds), abs=1e-3)
    # one that looks again alone still leaves the reading one to learn from
    alone = dataclasses.replace(
        both, config=dataclasses.replace(both.config, look=dataclasses.replace(look, alone=True))
    )
    assert len(lean_network.teachers_of(open_engine(alone, "torch", workers=1))) == 2
    assert len(lean_network.teachers_of(open_engine(small_model, "torch", workers=1))) == 1


def test_patches_of_each_kind_are_taught_as_they_are_scored(
    small_model: LoadedModel,
    patches: PatchSet,  # noqa: F811
) -> None:
    """Mirrored to the same side, and as many of each kind."""
    kinds = dict(zip(("positive", "negative", "hard_negative"), (patches.where(np.arange(i, i + 2)) for i in (0, 4, 8)), strict=True))  # fmt: skip
    of_all = dataclasses.replace(no_patches(), **kinds)
    engine = open_engine(small_model, "torch", workers=1)
    fields = list(lean_network.taught_patches([engine], of_all, np.random.default_rng(1), count=6))
    for i, field in enumerate(fields):
        kind = list(kinds.values())[i % 3]
        assert any(np.array_equal(field.rgb[16:-16, 16:-16], one) for one in kind.rgb)
        assert np.array_equal(field.rgb[:16], field.rgb[16:32][::-1])
        assert field.target.shape == (16, 16)


def test_it_learns_what_its_teacher_says(small_model: LoadedModel, material: Material) -> None:  # noqa: F811
    train = dataclasses.replace(small_model.config.train, region_px=128)
    teacher = dataclasses.replace(small_model, config=dataclasses.replace(small_model.config, train=train))
    steps = {"most_fields": 16, "seed": 8}
    _, _, little = lean_network.learn(teacher, material, steps=2, **steps)
    network, (state, ranges), much = lean_network.learn(teacher, material, steps=40, **steps)
    assert much["loss"] < 0.8 * little["loss"]
    assert (much["steps"], much["fields"], much["patches"], much["turns"]) == (40, 16, 32, 8)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {name.rpartition(".")[0] for name in ranges} >= {"backbone.stem.0", "dense.trunk.3"}


def test_of_a_teacher_that_sees_green_alone_it_learns_from_green_alone(
    small_model: LoadedModel,
    material: Material,  # noqa: F811
) -> None:
    network, (state, _), _ = lean_network.learn(seeing_green(small_model), material, steps=2, most_fields=8, seed=8)
    assert network.config.colours == "green"
    assert state["backbone.stem.0.weight"][:, 1].any()
    assert not state["backbone.stem.0.weight"][:, [0, 2]].any()


# -- a version of it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(small_network: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a model with labelled patches, and of what `slim` made of it."""
    work = tmp_path_factory.mktemp("slim")
    write_patches(work / "p.npz", n=60)
    data = {"folder": str(work), "patches": ["p.npz"], "hard_negatives": [], "validation_percent": 50}
    config = config_from_dict(
        {"data": data, "train": {"regions_every": 0, "region_px": 128}, "network": dataclasses.asdict(SMALL)}
    )
    card = {
        "evaluation": {"patches": {"auc": 0.9}, "slides_standard": {}},
        "test": {"auc": 2.0},
        "threshold": 0.7,
        "training": {"steps": 9},
    }
    config = dataclasses.replace(config, read=READ)
    save_model(work / "old", state=small_network.state_dict(), config=config, version="old", card=card)
    assert slim.main([str(work / "old"), "--out", str(work / "new"), "--version", "new", "--steps", "2"]) == 0
    return work / "old", work / "new"


def test_the_network_that_read_before_looks_again(folders: tuple[Path, Path]) -> None:
    old, new = map(load_model, folders)
    assert new.network.config.backbone == LEAN_LITE
    assert new.looker is not None
    theirs = old.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in new.looker.network.state_dict().items())
    assert new.card["look"] == {"version": "old", "sha256": old.sha256}
    assert new.card["lean"]["teacher"] == {"version": "old", "sha256": old.sha256}


def test_it_looks_again_alone(folders: tuple[Path, Path], noise_slide: ArraySource) -> None:
    old, new = map(load_model, folders)
    assert new.config.look == LookConfig("old", SMALL, alone=True)
    engine = open_engine(new, "torch", workers=1)
    assert engine.lookers != (engine,)
    assert len(engine.lookers) == 1
    read = dataclasses.replace(READ, second_look=True)
    again = dataclasses.replace(new, scanner=None, config=dataclasses.replace(new.config, read=read))
    once = dataclasses.replace(again, config=dataclasses.replace(again.config, read=READ))
    first = {lesion.peak: lesion for lesion in detect(noise_slide, once).lesions}
    found = [lesion for lesion in detect(noise_slide, again).lesions if lesion.second_look is not None]
    assert found
    for lesion in found[:2]:
        said = second_score(noise_slide, open_engine(old), first[lesion.peak], mpp=1.0)
        assert lesion.second_look == pytest.approx(said, abs=2e-4)
        assert lesion.score == pytest.approx(all_looks(first[lesion.peak].score, said, networks=1), abs=2e-4)


def test_a_model_whose_other_network_looks_alone_reads_differently(folders: tuple[Path, Path]) -> None:
    new = load_model(folders[1])
    look = dataclasses.replace(new.config.look, alone=False)
    both = dataclasses.replace(new, config=dataclasses.replace(new.config, look=look))
    assert both.reads_by != new.reads_by
    assert len(open_engine(both, "torch").lookers) == 2
    assert len(open_engine(new, "torch").lookers) == 1


def test_its_limits_are_those_of_a_mean_of_eight_looks(folders: tuple[Path, Path]) -> None:
    assert load_model(folders[1]).config.read == READ  # lower than needed already: as they were
    limits = slim._lower_limits(ReadConfig())
    assert (limits.seed_probability, limits.candidate_score, limits.glance_score) == (0.5, 0.65, 0.65)
    assert limits.grow_probability <= limits.seed_probability


def test_the_card_says_nothing_of_the_network_before(folders: tuple[Path, Path]) -> None:
    card = load_model(folders[1]).card
    assert card["evaluation"] == {}
    assert "threshold" not in card
    assert card["training"] == {"steps": 9}
    assert 0 <= card["test"]["auc"] <= 1
    assert 0 <= card["validation"]["auc"] <= 1
    assert card["int8"]["validation"]["float"] is not None


def test_boxes_are_those_of_the_network_that_looks_again(folders: tuple[Path, Path]) -> None:
    old, new = (open_engine(load_model(folder), "torch", workers=1) for folder in folders)
    rgb = tissue_like(256, 256, seed=4)
    assert new.has_towers
    assert len(old.boxes(rgb)) > 0
    assert np.array_equal(new.boxes(rgb), old.boxes(rgb))


def test_without_towers_anywhere_there_are_no_boxes(folders: tuple[Path, Path], noise_slide: ArraySource) -> None:
    alone = dataclasses.replace(load_model(folders[1]), looker=None)
    engine = open_engine(alone, "torch", workers=1)
    assert not engine.has_towers
    assert engine.boxes(tissue_like(128, 128)).shape == (0, 5)
    assert all(lesion.box_score is None for lesion in detect(noise_slide, alone, engine=engine).lesions)


def test_both_engines_read_with_it_alike(folders: tuple[Path, Path]) -> None:
    new = load_model(folders[1])
    rgb = tissue_like(448, 512, seed=4)[None]
    ours, theirs = (engine.read(rgb, margin_px=64) for engine in (open_engine(new, "torch"), engine_or_skip(new, "openvino")))  # fmt: skip
    assert ours.probability.shape == (1, 40, 48)
    assert np.abs(ours.probability - theirs.probability).max() < PARITY


def test_a_network_that_looks_again_already_stays(
    folders: tuple[Path, Path], small_network: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = load_model(folders[0])
    torch.manual_seed(8)
    other = Detector(SMALL)
    config = dataclasses.replace(old.config, look=LookConfig("two", SMALL))
    looker = (other.state_dict(), {})
    card = {"look": {"version": "two", "sha256": "2" * 64}}
    save_model(tmp_path / "both", state=small_network.state_dict(), config=config, version="both", card=card, looker=looker)  # fmt: skip
    command = [str(tmp_path / "both"), "--out", str(tmp_path / "lean"), "--version", "lean", "--steps", "2"]
    assert slim.main(command) == 0
    lean = load_model(tmp_path / "lean")
    said = capsys.readouterr()
    assert json.loads(said.out)["sha256"] == lean.sha256
    assert "lean will have no network that scans" in said.err
    assert lean.looker is not None
    assert torch.equal(lean.looker.network.box_scale, other.box_scale)
    stored = other.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in lean.looker.network.state_dict().items())
    assert (lean.card["look"], lean.config.look.version) == (card["look"], "two")


def test_a_lean_network_goes_on_learning(folders: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = folders
    command = [str(old), "--out", str(tmp_path / "on"), "--version", "on", "--steps", "1", "--start", str(new)]
    assert slim.main(command) == 0
    before, after = (load_model(folder).network.state_dict() for folder in (new, tmp_path / "on"))
    fresh = distillation.begin_with(load_model(old).network, Detector(lean_network.lean_network(SMALL))).state_dict()

    def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max(float((one[k] - other[k]).abs().max()) for k in one if k.endswith("head.weight") or ".stem.0." in k)

    assert 0 < apart(after, before) < apart(after, fresh)


def test_it_does_not_go_on_from_another_network(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = folders
    command = [str(old), "--out", str(tmp_path / "on"), "--version", "on", "--start", str(old)]
    assert slim.main(command) == 2
    assert "--start: old does not read with the lean network of old" in capsys.readouterr().err
    assert not (tmp_path / "on").exists()


def test_a_version_whose_slides_are_not_kept_is_refused(
    small_network: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = {"data": {"folder": str(tmp_path), "patches": [], "hard_negatives": []}}
    config = dataclasses.replace(DetectorConfig(network=SMALL), data=config_from_dict(raw).data)
    save_model(tmp_path / "old", state=small_network.state_dict(), config=config, version="old", card={})
    assert slim.main([str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--version", "new"]) == 2
    assert "old names no patches" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
