"""Patches as of a slide that has no finer pixels than some: in training, when scored, and by all looks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.detector.configuration import ConfigurationError, DetectorConfig, config_from_dict
from analysis.detector.network.detector import Detector
from analysis.detector.patch_looks import scores_of_all_looks
from analysis.detector.training.augmentation import coarser
from analysis.detector.training.batches import Batch, BatchMaker
from analysis.detector.training.material import load_material
from analysis.detector.training.patch_scores import score_coarse_patches, score_patches
from analysis.detector.training.validation import validation_figures
from analysis.detector.weights import LoadedModel
from analysis.metrics.roc import auc
from tests.analysis.detector.test_patch_file import write_patches
from tests.analysis.detector.test_teachers import taught_by

RAW: dict[str, dict[str, object]] = {
    "network": {"backbone": "resnet18"},
    "train": {"pretrained": False, "coarse_mpp": 2.0},
}


def detail(rgb: torch.Tensor) -> float:
    """Mean difference of neighbouring pixels."""
    values = rgb.float()
    return float((values[:, :, 1:] - values[:, :, :-1]).abs().mean())


def batch(tmp_path: Path, **train: object) -> Batch:
    config = taught_by(tmp_path, [str(tmp_path)], coarse_share=1.0, **train)
    return BatchMaker(config, load_material(config, rng=np.random.default_rng(0))).make(0)


def test_in_training_coarse_pixels_are_shown_at_the_size_of_fine_ones_and_teachers_see_the_fine_ones(
    tmp_path: Path,
) -> None:
    enlarged, small = batch(tmp_path, coarse_enlarged=True), batch(tmp_path)
    assert enlarged.taught is not None
    assert enlarged.taught.shape == enlarged.rgb.shape
    assert enlarged.rgb.shape[1] == 96
    assert enlarged.centre_px == pytest.approx(2 * small.centre_px)
    assert (enlarged.taught.float() - enlarged.rgb.float()).abs().mean() < 12, "the same field"
    assert detail(enlarged.rgb) < 0.6 * detail(enlarged.taught)


def test_what_two_micrometres_cannot_show_does_not_change_a_score() -> None:
    torch.manual_seed(0)
    network = Detector(config_from_dict(RAW).network).eval()
    grey = np.full((1, 96, 96, 3), 150, np.uint8)
    checked = grey + np.where(np.indices((96, 96)).sum(axis=0) % 2, 40, -40)[None, ..., None].astype(np.uint8)
    patches = np.concatenate([grey, checked])
    fine = score_patches(network, patches, patch_mpp=1.0, mpp=1.0)
    coarse = score_patches(network, patches, patch_mpp=1.0, mpp=1.0, pixels_mpp=2.0)
    assert abs(fine[0] - fine[1]) > 1e-4
    assert coarse[0] == pytest.approx(coarse[1], abs=1e-6)
    assert coarse[0] == pytest.approx(fine[0], abs=1e-3)


def test_coarse_pixels_are_as_wide_as_is_said() -> None:
    rgb = np.zeros((1, 96, 96, 3), np.uint8)
    rgb[:, :, 48:] = 200
    small, mpp = coarser(rgb, patch_mpp=0.97, mpp=2.0)
    assert small.shape == (1, 47, 47, 3)
    assert mpp * 47 == pytest.approx(0.97 * 96)
    assert small.mean() == pytest.approx(100, abs=1)


def test_coarse_patches_are_scored_as_the_training_showed_them() -> None:
    torch.manual_seed(0)
    config = config_from_dict(RAW)
    enlarged = dataclasses.replace(config, train=dataclasses.replace(config.train, coarse_enlarged=True))
    network = Detector(config.network).eval()
    rgb = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    patch_mpp = config.data.patch_mpp
    small = score_coarse_patches(network, rgb, config=config, mpp=0.5)
    large = score_coarse_patches(network, rgb, config=enlarged, mpp=0.5)
    assert np.array_equal(small, score_patches(network, rgb, patch_mpp=patch_mpp, mpp=2.0))
    assert np.array_equal(large, score_patches(network, rgb, patch_mpp=patch_mpp, mpp=0.5, pixels_mpp=2.0))
    assert not np.allclose(small, large, atol=1e-4)


def test_coarse_pixels_that_are_no_coarser_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.coarse_mpp must be more than train\.mpp"):
        config_from_dict({"train": {"mpp": 1.0, "coarse_mpp": 1.0, "coarse_enlarged": True}})


def test_weights_are_judged_by_coarse_pixels_where_most_patches_are_shown_so(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=120)
    write_patches(tmp_path / "h.npz", n=60)
    data = {"folder": str(tmp_path), "patches": ["p.npz"], "hard_negatives": ["h.npz"], "validation_percent": 40}
    torch.manual_seed(0)
    network = Detector(config_from_dict(RAW).network).eval()
    found = {}
    for share in (0.4, 0.6):
        train = {**RAW["train"], "coarse_share": share, "coarse_enlarged": True}
        config = config_from_dict({**RAW, "train": {**train, "regions_every": 0}, "data": data})
        material = load_material(config, rng=np.random.default_rng(0))
        found[share] = validation_figures(network, material, config)
        read = score_coarse_patches if share > 0.5 else score_sharp_patches
        sets = material.validation, material.validation_hard_negative
        scores = np.concatenate([read(network, one.rgb, config=config, mpp=1.0) for one in sets])
        truth = np.concatenate([sets[0].label == 1, np.zeros(len(sets[1]), bool)])
        assert found[share]["auc_with_hard"] == auc(truth, scores)
    assert found[0.4]["auc"] == found[0.6]["auc"]
    assert found[0.4]["auc_with_hard"] != found[0.6]["auc_with_hard"]


def score_sharp_patches(network: Detector, rgb: np.ndarray, *, config: DetectorConfig, mpp: float) -> np.ndarray:
    return score_patches(network, rgb, patch_mpp=config.data.patch_mpp, mpp=mpp)


def test_all_looks_see_the_coarse_pixels(small_model: LoadedModel) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    sharp = scores_of_all_looks(small_model, rgb, patch_mpp=1.0)
    coarse = scores_of_all_looks(small_model, rgb, patch_mpp=1.0, pixels_mpp=2.0)
    smooth = coarser(rgb, patch_mpp=1.0, mpp=2.0)[0]
    assert not np.allclose(sharp[1], coarse[1], atol=1e-4)
    assert np.allclose(scores_of_all_looks(small_model, smooth, patch_mpp=2.0), coarse, atol=1e-6)
