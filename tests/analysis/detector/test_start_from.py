"""A training may go on from the weights of a model version."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.detector import train
from analysis.detector.card import default_model_folder
from analysis.detector.configuration import ConfigurationError, config_from_dict, load_config
from analysis.detector.network.detector import Detector
from analysis.detector.training.material import load_material, no_patches
from analysis.detector.weights import load_model, save_model
from tests.analysis.detector.conftest import REPOSITORY, SMALL
from tests.analysis.detector.test_patch_file import write_patches

NETWORK = "[network]\npyramid_channels = 16\ntower_depth = 1\ndense_channels = 16\n"


@pytest.fixture
def version(tmp_path: Path, small_network: Detector) -> Path:
    config = config_from_dict({"network": {"pyramid_channels": 16, "tower_depth": 1, "dense_channels": 16}})
    assert config.network == SMALL
    save_model(tmp_path / "version", state=small_network.state_dict(), config=config, version="v1", card={})
    return tmp_path / "version"


def configured(tmp_path: Path, network: str) -> Path:
    write_patches(tmp_path / "p.npz", n=60)
    path = tmp_path / "more.toml"
    data = f'[data]\nfolder = "{tmp_path}"\npatches = ["p.npz"]\nhard_negatives = []\n'
    path.write_text(f'{network}{data}[train]\nstart_from = "version"\nregions_every = 0\nepochs = 1\n')
    return path


def test_training_begins_with_the_weights_of_the_version(version: Path, tmp_path: Path) -> None:
    config = load_config(configured(tmp_path, NETWORK))
    assert config.train.start_from == str(version), "a relative folder lies beside the configuration file"
    trainer = train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)
    started, stored = trainer.network.state_dict(), load_model(version).network.state_dict()
    assert started.keys() == stored.keys()
    assert all(torch.equal(started[key], stored[key]) for key in stored)


@pytest.mark.parametrize(("table", "name"), [("look", "looker"), ("closer", "closer")])
def test_it_may_be_a_network_that_looks_again(small_network: Detector, tmp_path: Path, table: str, name: str) -> None:
    """As the shipped version's are, beside a leaner one that reads."""
    config = config_from_dict(
        {table: {"version": "other", "network": dataclasses.asdict(SMALL)}, "network": {"heads": "mask"}}
    )
    beside: dict[str, Any] = {name: (small_network.state_dict(), {})}
    save_model(tmp_path / "version", state=Detector(config.network).state_dict(), config=config, version="v2", card={}, **beside)  # fmt: skip
    more = load_config(configured(tmp_path, NETWORK))
    started = train.Trainer(more, load_material(more, rng=np.random.default_rng(0)), tmp_path).network.state_dict()
    assert torch.equal(started["dense.head.weight"], small_network.state_dict()["dense.head.weight"])


def test_the_how_to_starts_from_the_shipped_version(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "how-to" / "train.md").read_text()
    (block,) = [part for part in page.split("```toml\n") if 'start_from = "shipped"' in part]
    (tmp_path / "own.toml").write_text(block.split("```")[0])
    config = load_config(tmp_path / "own.toml")
    shipped = load_model(default_model_folder())
    (own,) = [one.network for one in (shipped, shipped.looker) if one and one.config.network == config.network]
    started = train.Trainer(config, no_patches(), tmp_path).network.state_dict()
    assert torch.equal(started["dense.head.weight"], own.state_dict()["dense.head.weight"])


def test_a_version_of_another_network_is_refused(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configured(tmp_path, NETWORK.replace("16", "24"))
    assert train.main([str(path), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "v1 is of another network" in said
    assert "write pyramid_channels = 16, dense_channels = 16" in said
    with pytest.raises(ConfigurationError):
        train.Trainer(load_config(path), load_material(load_config(path), rng=np.random.default_rng(0)), tmp_path)


def test_the_card_does_not_say_where_the_first_version_lay(version: Path, tmp_path: Path) -> None:
    assert train.main([str(configured(tmp_path, NETWORK)), "--out", str(tmp_path / "run")]) == 0
    assert load_model(tmp_path / "run" / "model").config.train.start_from == "version"
