from pathlib import Path

import pytest

from analysis.detector.configuration import (
    ConfigurationError,
    DetectorConfig,
    config_from_dict,
    config_of_card,
    load_config,
)
from tests.analysis.detector.conftest import REPOSITORY


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "analysis/detector/configs").glob("*.toml")), ids=lambda p: p.name
)
def test_each_shipped_configuration_is_valid(path: Path) -> None:
    assert load_config(path).name


def test_a_configuration_survives_json() -> None:
    config = config_from_dict({"network": {"attention": "box"}, "train": {"learning_rate": 1}})
    assert config_from_dict(config.to_json()) == config
    assert config.train.learning_rate == 1.0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"netwrok": {}}, "unknown key netwrok"),
        ({"train": {"epoch": 3}}, "unknown key train.epoch"),
        ({"train": {"epochs": "3"}}, "train.epochs must be int"),
        ({"train": {"device": "gpu"}}, "train.device must be auto, cpu or cuda"),
        ({"train": {"workers": -1}}, "train.workers must not be negative"),
        ({"train": {"epochs": True}}, "train.epochs must be int"),
        ({"network": 3}, "network must be a table"),
        ({"network": {"attention": "everywhere"}}, "none, class, box or both"),
        ({"network": {"gate_windows": [15, 9, 5]}}, "four odd numbers"),
        (
            {"network": {"backbone": "resnet50"}},
            "is not known; use efficientnet-lite0, efficientnet-lite2, efficientnet-lite0-half, efficientnet-lite0-lean, resnet18, resnet34",
        ),
        ({"network": {"backbone": "resnet18"}}, "there are no weights for resnet18"),
        ({"network": {"gate": "wide"}}, "windowed or global"),
        ({"network": {"heads": "none"}}, "both, mask or box"),
        ({"data": {"fraction": 0.0}}, "data.fraction"),
        ({"data": {"composed_slides": -1}}, "data.composed_slides"),
        ({"network": {"backbone_stride": 8}}, "16 or 32"),
    ],
)
def test_a_wrong_key_or_value_is_named(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config_from_dict(raw)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_config(tmp_path / "absent.toml")


def test_defaults_are_the_shipped_reading_scales() -> None:
    assert (DetectorConfig().read.mpp, DetectorConfig().read.scan_mpp) == (1.0, 2.0)


def test_a_model_version_with_a_retired_key_is_still_good() -> None:
    config = config_of_card({"read": {"box_probability": 0.1, "mpp": 2.0}})
    assert config.read.mpp == 2.0
    with pytest.raises(ConfigurationError, match=r"unknown key read\.box_probability"):
        config_from_dict({"read": {"box_probability": 0.1}})
    with pytest.raises(ConfigurationError, match=r"unknown key read\.box_chance"):
        config_of_card({"read": {"box_chance": 0.1}})


def test_a_card_from_before_the_second_look_is_read_as_it_was() -> None:
    raw = config_from_dict({}).to_json()
    assert config_of_card(raw).read.second_look is True
    assert config_of_card(raw).read.bridge_probability < 1
    for name in ("second_look", "candidate_score", "give_up_score", "box_score", "bridge_probability"):
        del raw["read"][name]
    read = config_of_card(raw).read
    assert (read.second_look, read.candidate_score, read.give_up_score, read.box_score) == (False, 0.0, 0.0, 0.0)
    assert read.bridge_probability == 1
    assert config_of_card({}).read.second_look is False
    assert config_of_card({}).data.scanner_by == "column"
    assert config_of_card(raw).data.scanner_by == "colour"


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "analysis/detector/configs").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_configuration_that_comes_with_the_code_can_be_used(path: Path) -> None:
    config = load_config(path)
    assert path.stem.startswith(config.name)
    assert config.train.mpp == config.read.mpp, "a network is judged at the spacing that it learns at"
