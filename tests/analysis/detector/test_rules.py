"""The same weights read by other rules are another version."""

from pathlib import Path

import pytest
import torch

from analysis.detector import rules
from analysis.detector.configuration import BEFORE, DetectorConfig, ReadConfig, ScanConfig, config_of_card
from analysis.detector.network.detector import Detector
from analysis.detector.weights import load_model, save_model
from tests.analysis.detector.conftest import SMALL

SCAN = ScanConfig(pyramid_channels=8, dense_channels=8)


@pytest.fixture
def folder(small_network: Detector, tmp_path: Path) -> Path:
    config = DetectorConfig(network=SMALL, read=ReadConfig(scan_score=0.3, margin_px=64), scan=SCAN)
    card = {
        "data": {"test_fold": 4},
        "evaluation": {"patches": {"auc": 0.9}, "slides_fast": {"froc_2016": 0.8}},
        "threshold": 0.7,
        "calibration": {},
        "suspicion": {},
    }
    torch.manual_seed(4)
    scanner = (Detector(SCAN.network).state_dict(), {})
    save_model(
        tmp_path / "one", state=small_network.state_dict(), config=config, version="one", card=card, scanner=scanner
    )
    return tmp_path / "one"


def made(folder: Path, *settings: str) -> int:
    sets = [word for setting in settings for word in ("--set", setting)]
    return rules.main([str(folder), *sets, "--out", str(folder.parent / "two"), "--version", "two"])


def test_another_version_of_the_same_weights_has_the_rules_that_were_set(folder: Path) -> None:
    assert made(folder, "scan_stands_out=2", "scan_grow_probability = 0.2") == 0
    one, two = load_model(folder), load_model(folder.parent / "two")
    expected = {**vars(one.config.read), "scan_stands_out": 2.0, "scan_grow_probability": 0.2}
    assert vars(two.config.read) == expected
    assert (two.version, two.config.network, two.config.scan) == ("two", one.config.network, one.config.scan)
    assert two.sha256 != one.sha256  # an installation knows a version by it
    assert two.scanner is not None
    assert one.scanner is not None
    for mine, other in ((two, one), (two.scanner, one.scanner)):
        theirs = other.network.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.network.state_dict().items())


def test_what_slides_said_is_left_out_of_its_card(folder: Path) -> None:
    assert made(folder, "scan_score=0.4") == 0
    card = load_model(folder.parent / "two").card
    assert card == {"data": {"test_fold": 4}, "evaluation": {"patches": {"auc": 0.9}}}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("scan_scores=0.4", "read.scan_scores"),
        ("scan_score=high", "--set scan_score=high: write KEY=VALUE"),
        ("scan_score", "--set scan_score: write KEY=VALUE"),
        ('scan_score="0.4"', "read.scan_score must be float"),
    ],
)
def test_a_rule_that_there_is_not_is_refused_in_words(
    folder: Path, setting: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(folder, setting) == 2
    assert words in capsys.readouterr().err
    assert not (folder.parent / "two").exists()


def test_a_card_from_before_weak_finds_had_to_stand_out_reads_as_it_did() -> None:
    read = config_of_card({"read": {"scan_score": 0.55}}).read
    assert (read.scan_stands_out, read.scan_grow_probability) == (0.0, 0.4)
    assert BEFORE["read"].keys() <= vars(read).keys()
