"""Another model's network may look again at the candidates, beside the one that reads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.detector import look
from analysis.detector.calibration import logit, sigmoid
from analysis.detector.configuration import DetectorConfig, ReadConfig, ScanConfig
from analysis.detector.engine import PARITY, open_engine
from analysis.detector.infer import detect
from analysis.detector.network.detector import Detector
from analysis.detector.patch_looks import scores_of_all_looks
from analysis.detector.pixel_source import ArraySource
from analysis.detector.second_look import all_looks, second_score
from analysis.detector.training.patch_scores import score_patches
from analysis.detector.weights import LoadedModel, load_model, save_model
from tests.analysis.detector.conftest import SMALL, engine_or_skip, tissue_like

OTHER = dataclasses.replace(SMALL, dense_stride=8)
READ = ReadConfig(
    seed_probability=0.3,
    grow_probability=0.25,
    candidate_score=0.0,
    second_look=True,
    give_up_score=0.0,
    box_score=0.0,
)
SCAN = ScanConfig(pyramid_channels=8, dense_channels=8)


def of_another_kind() -> Detector:
    torch.manual_seed(8)
    network = Detector(OTHER).eval()
    network.dense.head.weight.data *= 4
    return network


@pytest.fixture(scope="module")
def folders(small_network: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Of a model, of another one, and of what `look` made of both."""
    work = tmp_path_factory.mktemp("look")
    config = DetectorConfig(network=SMALL, read=READ, scan=SCAN)
    torch.manual_seed(4)
    scanner = (Detector(SCAN.network).state_dict(), {})
    card = {"evaluation": {"patches": {"auc": 0.9}, "slides_standard": {}}, "threshold": 0.7, "calibration": {}}
    save_model(work / "one", state=small_network.state_dict(), config=config, version="one", card=card, scanner=scanner)
    other = DetectorConfig(network=OTHER)
    save_model(work / "two", state=of_another_kind().state_dict(), config=other, version="two", card={})
    command = [str(work / "one"), "--by", str(work / "two"), "--out", str(work / "both"), "--version", "both"]
    assert look.main(command) == 0
    return work / "one", work / "two", work / "both"


def same_weights(one: LoadedModel | None, other: LoadedModel | None) -> bool:
    assert one is not None
    assert other is not None
    theirs = other.network.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.network.state_dict().items())


def test_all_networks_lie_in_one_file_and_none_is_changed(folders: tuple[Path, Path, Path]) -> None:
    one, two, both = map(load_model, folders)
    assert same_weights(both, one)
    assert same_weights(both.scanner, one.scanner)
    assert same_weights(both.looker, two)
    assert both.looker is not None
    assert both.looker.sha256 == both.sha256 != one.sha256
    assert both.card["look"] == {"version": "two", "sha256": two.sha256}
    assert both.config.look.version == "two"


def test_what_was_fitted_or_measured_with_other_looks_is_left_out_of_the_card(folders: tuple[Path, Path, Path]) -> None:
    card = load_model(folders[2]).card
    assert "evaluation" not in card
    assert "threshold" not in card
    assert "calibration" not in card


def test_a_model_is_stored_again_with_all_that_lies_beside_it(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    both = load_model(folders[2])
    state = both.network.state_dict()
    save_model(tmp_path, state=state, config=both.config, version="again", card={}, **both.beside)
    again = load_model(tmp_path)
    assert again.sha256 == both.sha256
    assert same_weights(again.looker, both.looker)


@pytest.mark.parametrize("alone", [False, True])
def test_another_network_takes_the_place_of_the_one_that_looked_as_it_did(
    folders: tuple[Path, Path, Path], tmp_path: Path, alone: bool
) -> None:
    one, _, both = map(load_model, folders)
    config = dataclasses.replace(both.config, look=dataclasses.replace(both.config.look, alone=alone))
    look.with_looker(dataclasses.replace(both, config=config), one, tmp_path, version="other")
    other = load_model(tmp_path)
    assert other.config.look.version == "one"
    assert same_weights(other.looker, one)
    assert len(open_engine(other, "torch", workers=1).lookers) == (1 if alone else 2)


def test_a_model_without_another_network_looks_again_by_itself(folders: tuple[Path, Path, Path]) -> None:
    engine = open_engine(load_model(folders[0]), "torch", workers=1)
    assert engine.lookers == (engine,)


def test_a_candidate_is_judged_by_the_first_look_and_both_second_ones(
    folders: tuple[Path, Path, Path], noise_slide: ArraySource
) -> None:
    # the word of an untrained scan would decide alone
    one, two, both = (dataclasses.replace(load_model(folder), scanner=None) for folder in folders)
    read = dataclasses.replace(READ, second_look=False)
    once = detect(noise_slide, dataclasses.replace(one, config=dataclasses.replace(one.config, read=read)))
    first = {lesion.peak: lesion for lesion in once.lesions}
    found = [lesion for lesion in detect(noise_slide, both).lesions if lesion.second_look is not None]
    assert found
    by_one, by_two = open_engine(one), open_engine(two)
    for lesion in found[:3]:
        candidate = first[lesion.peak]
        said = [second_score(noise_slide, engine, candidate, mpp=1.0) for engine in (by_one, by_two)]
        assert abs(said[0] - said[1]) > 0.01, "else the test could not tell one from both"
        together = sigmoid((logit(said[0]) + logit(said[1])) / 2)
        assert lesion.second_look == pytest.approx(together, abs=2e-4)
        assert lesion.score == pytest.approx(all_looks(candidate.score, together, networks=2), abs=2e-4)


def test_the_engines_look_again_alike(folders: tuple[Path, Path, Path]) -> None:
    both = load_model(folders[2])
    rgb = tissue_like(256, 256, seed=4)[None]
    torchs, openvinos = (engine.lookers for engine in (open_engine(both, "torch"), engine_or_skip(both, "openvino")))
    assert len(torchs) == len(openvinos) == 2
    for ours, theirs in zip(torchs, openvinos, strict=True):
        assert np.abs(ours.read(rgb).probability - theirs.read(rgb).probability).max() < PARITY


def test_two_models_that_differ_in_the_other_network_alone_read_differently(
    folders: tuple[Path, Path, Path],
) -> None:
    both = load_model(folders[2])
    assert both.reads_by != dataclasses.replace(both, looker=None).reads_by
    assert open_engine(both, "torch") is not open_engine(dataclasses.replace(both, looker=None), "torch")


def test_a_network_of_another_spacing_is_refused(
    folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DetectorConfig(network=OTHER, read=ReadConfig(mpp=1.5))
    save_model(tmp_path / "coarse", state=of_another_kind().state_dict(), config=config, version="coarse", card={})
    command = [str(folders[0]), "--by", str(tmp_path / "coarse"), "--out", str(tmp_path / "both"), "--version", "both"]
    assert look.main(command) == 2
    assert "coarse reads at 1.5 um/px and one at 1.0: it must know the same spacing" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_a_missing_other_model_is_refused_in_words(
    folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(folders[0]), "--by", str(tmp_path / "none"), "--out", str(tmp_path / "both"), "--version", "both"]
    assert look.main(command) == 2
    assert capsys.readouterr().err.startswith("error: none")


# -- patches -------------------------------------------------------------------------------------------------------------


def patches(n: int = 3) -> np.ndarray:
    return np.stack([tissue_like(96, 96, seed=seed) for seed in range(n)])


def reading(model: LoadedModel, *, alone: bool = False, second_look: bool = True) -> LoadedModel:
    config = dataclasses.replace(
        model.config,
        read=dataclasses.replace(model.config.read, second_look=second_look),
        look=dataclasses.replace(model.config.look, alone=alone),
    )
    return dataclasses.replace(model, config=config)


def log_odds(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


@pytest.mark.parametrize("alone", [False, True])
def test_a_patch_gets_all_looks_that_a_candidate_gets(folders: tuple[Path, Path, Path], alone: bool) -> None:
    model = reading(load_model(folders[2]), alone=alone)
    rgb = patches()
    first, together = scores_of_all_looks(model, rgb, patch_mpp=1.0)
    assert model.looker is not None
    networks = [model.looker.network] if alone else [model.network, model.looker.network]
    upright = [np.rot90(rgb, k, axes=(1, 2)) for k in range(4)]
    ways = upright + [one[:, :, ::-1] for one in upright]
    seconds = [
        np.mean([score_patches(network, np.ascontiguousarray(way), patch_mpp=1.0, mpp=1.0) for way in ways], axis=0)
        for network in networks
    ]
    words = [log_odds(first), *map(log_odds, seconds)]
    assert log_odds(together) == pytest.approx(np.mean(words, axis=0), abs=2e-3)  # kept with four digits
    assert first == pytest.approx(score_patches(model.network, rgb, patch_mpp=1.0, mpp=1.0), abs=1e-6)
    assert np.abs(together - first).max() > 1e-3


def test_a_model_without_another_network_looks_again_itself(folders: tuple[Path, Path, Path]) -> None:
    model = reading(load_model(folders[0]))
    rgb = patches()
    first, together = scores_of_all_looks(model, rgb, patch_mpp=1.0)
    assert np.abs(together - first).max() > 1e-4
    again = scores_of_all_looks(reading(model, second_look=False), rgb, patch_mpp=1.0)
    assert np.array_equal(again[0], again[1].astype(np.float32))


def test_progress_over_all_looks_goes_on_to_the_end_and_no_patch_is_no_error(folders: tuple[Path, Path, Path]) -> None:
    model = reading(load_model(folders[2]))
    fractions: list[float] = []
    scores_of_all_looks(model, patches(2), patch_mpp=1.0, on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert len(fractions) == 1 + 2 * 8
    none = scores_of_all_looks(model, patches(1)[:0], patch_mpp=1.0)
    assert [len(some) for some in none] == [0, 0]
