"""What a step learns from depends on the seed and its number alone, whoever prepares it and wherever the network is."""

import dataclasses
import json
import multiprocessing
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from analysis.detector import train
from analysis.detector.composing.outlines import load_outlines
from analysis.detector.configuration import DetectorConfig, config_from_dict
from analysis.detector.network.detector import to_input
from analysis.detector.training.material import Material, load_material
from analysis.detector.training.region_scores import judge_regions
from analysis.detector.training.regions import RegionMaker, Sheets
from tests.analysis.detector.conftest import tissue_like
from tests.analysis.detector.test_material import _outline_file
from tests.analysis.detector.test_patch_file import write_patches

HAS_CUDA = torch.cuda.is_available()
STEPS = 6


def configured(folder: Path, **train: object) -> DetectorConfig:
    schedule = {
        "patch_batch": 4,
        "region_batch": 2,
        "region_px": 128,
        "warmup_steps": 2,
        "pretrained": False,
        "device": "cpu",
    }
    return config_from_dict(
        {
            "network": {"pyramid_channels": 16, "tower_depth": 1, "dense_channels": 16},
            "data": {"folder": str(folder), "patches": ["p.npz"], "hard_negatives": []},
            "train": {**schedule, **train},
        }
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Patches, and regions composed of made tissue."""
    folder = tmp_path_factory.mktemp("material")
    write_patches(folder / "p.npz", n=120)
    found = load_material(configured(folder, regions_every=0), rng=np.random.default_rng(0))
    sheets = Sheets(*(tissue_like(256, 256, seed=seed) for seed in range(4)))
    outlines = load_outlines(_outline_file(folder), split="train")
    return dataclasses.replace(found, regions=RegionMaker([sheets], outlines, side=128, mpp=1.0))


def trained(material: Material, folder: Path, steps: int, **options: object) -> train.Trainer:
    """After so many steps of patches and regions in turn; goes on from a checkpoint in the folder."""
    trainer = train.Trainer(configured(folder, regions_every=1, **options), material, folder)
    trainer.resume()
    with closing(trainer):
        while trainer.progress.step < steps:
            losses = trainer.step()
            assert all(torch.isfinite(loss) for loss in losses.values())
    assert not multiprocessing.active_children()
    return trainer


def assert_same_weights(one: train.Trainer, other: train.Trainer) -> None:
    for key, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[key]), key
        assert torch.equal(one.average[key], other.average[key]), key


@pytest.fixture(scope="module")
def whole(material: Material, tmp_path_factory: pytest.TempPathFactory) -> train.Trainer:
    """Trained without a break by one process."""
    return trained(material, tmp_path_factory.mktemp("whole"), STEPS)


def test_any_number_of_processes_prepares_the_same_batches(
    material: Material, whole: train.Trainer, tmp_path: Path
) -> None:
    assert_same_weights(whole, trained(material, tmp_path, STEPS, workers=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_with_the_same_weights(
    workers: int, material: Material, whole: train.Trainer, tmp_path: Path
) -> None:
    trained(material, tmp_path, 3, workers=workers).save_checkpoint()
    assert_same_weights(whole, trained(material, tmp_path, STEPS, workers=workers))


def test_a_checkpoint_that_still_holds_a_random_state_goes_on(material: Material, tmp_path: Path) -> None:
    trained(material, tmp_path, 2).save_checkpoint()
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["note"])
    note["rng"] = np.random.default_rng(7).bit_generator.state
    save_file(load_file(path), path, metadata={"note": json.dumps(note)})
    assert trained(material, tmp_path, 3).progress.step == 3


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text('[data]\nfolder = "absent"\n[train]\ndevice = "cuda"\n')
    assert train.main([str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "error: train.device: torch finds no CUDA device here; use auto or cpu" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")
def test_a_training_on_cuda_scores_there_and_goes_on_on_the_processor(material: Material, tmp_path: Path) -> None:
    trainer = trained(material, tmp_path, 4, device="cuda", workers=2)
    network = trainer.averaged()
    assert network.device.type == "cuda"
    assert trainer.validate().keys() >= {"auc", "auc_coarse"}
    assert material.regions is not None
    judge_regions(network, [material.regions.make(np.random.default_rng(0))])
    image = tissue_like(128, 128)[None]
    there = network(to_input(image, device="cuda")).tumour_logit.detach().cpu()
    here = network.cpu()(to_input(image)).tumour_logit.detach()
    assert torch.allclose(there, here, atol=0.05)
    trainer.keep_if_best({"auc": 0.5})
    trainer.save_checkpoint()
    went_on = trained(material, tmp_path, STEPS, device="cpu")
    assert went_on.progress.step == STEPS
    went_on.save_checkpoint()
    assert trained(material, tmp_path, STEPS + 2, device="cuda").progress.step == STEPS + 2
