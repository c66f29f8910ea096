"""A network that knows a finer spacing may look closer at the candidates, beside the others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.detector import look
from analysis.detector.calibration import logit, sigmoid
from analysis.detector.configuration import CloserConfig, ConfigurationError, DetectorConfig, ReadConfig, TrainConfig
from analysis.detector.engine import CLOSER_BYTES, PARITY, Engine, open_engine
from analysis.detector.enlarging import enlarged
from analysis.detector.infer import detect
from analysis.detector.network.detector import Detector
from analysis.detector.patch_looks import lookers_of, scores_of_all_looks
from analysis.detector.pixel_source import ArraySource
from analysis.detector.reading_plan import WINDOW_BYTES, Grid
from analysis.detector.second_look import all_looks, second_score
from analysis.detector.training.augmentation import rescale
from analysis.detector.training.eight_bits import zoom_of
from analysis.detector.training.lean_network import taught_fields, teachers_of
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import score_turned
from analysis.detector.turning import WAYS, turn, turn_back
from analysis.detector.weights import load_model, save_model
from tests.analysis.detector.conftest import SMALL, engine_or_skip, tissue_like
from tests.analysis.detector.test_look import READ, of_another_kind
from tests.analysis.detector.test_scan_network import material, patches  # noqa: F401

FINE = dataclasses.replace(SMALL, backbone_stride=32)


@pytest.fixture(scope="module")
def folders(small_network: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Of a model with another network that looks again, of one that knows 0.5 um/px, and of what `look` made of both."""
    work = tmp_path_factory.mktemp("closer")
    other = of_another_kind()
    config = DetectorConfig(
        network=SMALL,
        read=READ,
        look=dataclasses.replace(DetectorConfig().look, version="another", network=other.config),
    )
    beside = {"looker": (other.state_dict(), {})}
    save_model(work / "one", state=small_network.state_dict(), config=config, version="one", card={}, **beside)
    torch.manual_seed(11)
    fine = Detector(FINE).eval()
    fine.dense.head.weight.data *= 4
    of_fine = DetectorConfig(network=FINE, read=ReadConfig(mpp=0.5), train=TrainConfig(mpp=0.5))
    save_model(work / "fine", state=fine.state_dict(), config=of_fine, version="fine", card={})
    command = [str(work / "one"), "--by", str(work / "fine"), "--out", str(work / "all"), "--version", "all"]
    assert look.main([*command, "--ways", "4"]) == 0
    return work / "one", work / "fine", work / "all"


def test_the_network_lies_beside_the_others_and_the_card_names_it(folders: tuple[Path, Path, Path]) -> None:
    one, fine, everything = map(load_model, folders)
    assert everything.closer is not None
    assert everything.looker is not None
    theirs = fine.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in everything.closer.network.state_dict().items())
    assert everything.config.closer == CloserConfig("fine", FINE, mpp=0.5, ways=4)
    assert everything.config.look == one.config.look
    assert everything.card["closer"] == {"version": "fine", "sha256": fine.sha256}
    assert everything.reads_by != one.reads_by
    assert everything.reads_by != dataclasses.replace(everything, closer=None).reads_by


def test_what_is_made_of_a_version_keeps_the_network_that_looks_closer(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    everything, other = load_model(folders[2]), load_model(folders[0])
    look.with_looker(everything, other, tmp_path, version="again")
    again = load_model(tmp_path)
    assert again.closer is not None
    assert again.config.closer == everything.config.closer


def test_it_sees_the_same_field_enlarged_and_answers_for_the_same_place(folders: tuple[Path, Path, Path]) -> None:
    everything = load_model(folders[2])
    closer = open_engine(everything, "torch", workers=1).lookers[-1]
    alone = open_engine(load_model(folders[1]), "torch", workers=1)
    field = tissue_like(256, 256, seed=2)[None]
    said, wanted = (
        closer.read(field, margin_px=64).probability,
        alone.read(enlarged(field, 2), margin_px=128).probability,
    )
    assert np.array_equal(said, wanted)
    assert said.shape[1] * closer.dense_stride == 256 - 2 * 64
    by_training = rescale(field, factor=2.0, side=512)
    assert np.abs(enlarged(field, 2).astype(int) - by_training).max() <= 1, "as its training enlarged patches"


def test_the_engines_look_closer_alike(folders: tuple[Path, Path, Path]) -> None:
    everything = load_model(folders[2])
    rgb = tissue_like(256, 256, seed=4)[None]
    ours, theirs = (e.lookers[-1] for e in (open_engine(everything, "torch"), engine_or_skip(everything, "openvino")))
    assert ours.ways == theirs.ways == 4
    assert np.abs(ours.read(rgb).probability - theirs.read(rgb).probability).max() < PARITY


def test_a_candidate_is_judged_by_its_word_too_of_so_many_ways_up(
    folders: tuple[Path, Path, Path], noise_slide: ArraySource
) -> None:
    one, everything = load_model(folders[0]), load_model(folders[2])
    found = [lesion for lesion in detect(noise_slide, everything).lesions if lesion.second_look is not None]
    assert found
    read = dataclasses.replace(READ, second_look=False)
    once = detect(noise_slide, dataclasses.replace(one, config=dataclasses.replace(one.config, read=read)))
    first = {lesion.peak: lesion for lesion in once.lesions}
    engine = open_engine(everything)
    for lesion in found[:2]:
        candidate = first[lesion.peak]
        said = [second_score(noise_slide, _alone(each), candidate, mpp=1.0) for each in engine.lookers]
        together = sigmoid(sum(map(logit, said)) / 3)
        assert abs(said[2] - together) > 0.01, "else the test could not tell whether it was asked"
        assert lesion.second_look == pytest.approx(together, abs=2e-4)
        assert lesion.score == pytest.approx(all_looks(candidate.score, together, networks=3), abs=2e-4)
    seen: list[int] = []
    second_score(noise_slide, _alone(engine.lookers[2], seen=seen), first[found[0].peak], mpp=1.0)
    assert sum(seen) == 4


def test_windows_leave_room_for_it(folders: tuple[Path, Path, Path]) -> None:
    without, beside = (open_engine(load_model(folder), "torch", workers=1) for folder in (folders[0], folders[2]))
    grid = Grid.of(width=40_000, height=30_000, mpp_x=0.5, mpp_y=0.5)
    whole, left = (
        grid.largest_window_px(engine.bytes_per_px, held_bytes=engine.held_bytes) for engine in (without, beside)
    )
    assert whole * without.bytes_per_px == pytest.approx(WINDOW_BYTES, rel=0.01)
    assert 2 * left * beside.bytes_per_px + CLOSER_BYTES == pytest.approx(2 * WINDOW_BYTES, rel=0.01)


def test_fast_does_not_ask_it(folders: tuple[Path, Path, Path], noise_slide: ArraySource) -> None:
    everything = load_model(folders[2])
    read = dataclasses.replace(READ, scan_score=0.05, scan_grow_probability=0.04, scan_stands_out=0.0, glance_score=0.0)
    both = dataclasses.replace(everything, config=dataclasses.replace(everything.config, read=read))
    looked = [
        {one.peak: one.second_look for one in detect(noise_slide, model, profile=profile).lesions}
        for model in (both, dataclasses.replace(both, closer=None))
        for profile in ("fast", "standard")
    ]
    assert looked[0] == looked[2]
    assert looked[1] != looked[3]
    assert any(second is not None for second in looked[0].values())


class _alone:
    """An engine that looks again by itself, and counts what it is shown."""

    def __init__(self, engine: Engine, *, seen: list[int] | None = None) -> None:
        self.engine, self.seen = engine, [] if seen is None else seen
        self.ways, self.zoom, self.workers = engine.ways, engine.zoom, 1

    @property
    def lookers(self) -> "tuple[_alone]":
        return (self,)

    def read(self, rgb: np.ndarray, *, margin_px: int = 0) -> object:
        self.seen.append(len(rgb))
        return self.engine.read(rgb, margin_px=margin_px)


def test_a_patch_is_judged_by_its_word_too(folders: tuple[Path, Path, Path]) -> None:
    everything = load_model(folders[2])
    rgb = np.stack([tissue_like(96, 96, seed=seed) for seed in range(3)])
    fractions: list[float] = []
    first, together = scores_of_all_looks(everything, rgb, patch_mpp=1.0, on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert [(one.version, one.mpp, one.ways) for one in lookers_of(everything)] == [
        ("all", 1.0, WAYS),
        ("another", 1.0, WAYS),
        ("fine", 0.5, WAYS[:4]),
    ]
    words = [
        score_turned(one.network, rgb, patch_mpp=1.0, mpp=one.mpp, ways=one.ways) for one in lookers_of(everything)
    ]
    odds = np.mean([np.log(p / (1 - p)) for p in (first, *words)], axis=0)
    assert np.log(together / (1 - together)) == pytest.approx(odds, abs=2e-3)


def test_it_may_teach_a_lean_network_with_the_others(
    folders: tuple[Path, Path, Path],
    material: Material,  # noqa: F811
) -> None:
    """Its map, of finer cells, is brought to those that the lean network draws."""
    teachers = teachers_of(open_engine(load_model(folders[2]), "torch", workers=1))
    assert [teacher.dense_stride for teacher in teachers] == [4, 8, 2]
    (taught,) = taught_fields(teachers[2:], material, DetectorConfig(), np.random.default_rng(0), count=1)
    turned = [turn_back(teachers[2].read(turn(taught.rgb, way)[None]).probability[0], way) for way in range(8)]
    cells = len(taught.rgb) // 8
    wanted = np.mean(turned, axis=0).reshape(cells, 4, cells, 4).mean(axis=(1, 3))
    assert taught.target == pytest.approx(wanted, abs=1e-4)


def test_a_spacing_that_is_no_whole_part_is_refused(
    folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DetectorConfig(network=FINE, read=ReadConfig(mpp=0.7))
    save_model(tmp_path / "odd", state=Detector(FINE).state_dict(), config=config, version="odd", card={})
    command = [str(folders[0]), "--by", str(tmp_path / "odd"), "--out", str(tmp_path / "x"), "--version", "x"]
    assert look.main(command) == 2
    assert "odd reads at 0.7 um/px and one at 1.0: it must know the same spacing, or one" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    fine = [str(folders[0]), "--by", str(folders[1]), "--out", str(tmp_path / "x"), "--version", "x", "--ways", "3"]
    assert look.main(fine) == 2
    assert "closer.ways must be 2, 4, 6 or 8" in capsys.readouterr().err
    for odd in (0.7, 2.0, 0.0, -0.5, 0.001, float("nan")):
        with pytest.raises(ConfigurationError, match=r"closer\.mpp"):
            DetectorConfig(closer=CloserConfig("odd", FINE, mpp=odd))


def test_ranges_are_measured_on_what_it_will_see() -> None:
    assert zoom_of(DetectorConfig()) == 1.0
    assert zoom_of(DetectorConfig(read=ReadConfig(mpp=0.5))) == pytest.approx(1.94)


def test_numbers_that_half_precision_holds_are_stored_so(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    fine = load_model(folders[1])
    rounded = {k: v.half().float() if v.dtype == torch.float32 else v for k, v in fine.network.state_dict().items()}
    save_model(tmp_path, state=rounded, config=fine.config, version="half", card={})
    assert (tmp_path / "weights.safetensors").stat().st_size < 0.6 * (folders[1] / "weights.safetensors").stat().st_size
    again = load_model(tmp_path).network.state_dict()
    assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype for name, value in rounded.items())
