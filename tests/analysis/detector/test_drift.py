"""Stain and feature statistics: known colours, known distances, and words only beyond the limits."""

import json

import numpy as np
import pytest

from analysis.detector.drift import (
    STAIN,
    drift_of,
    feature_sum,
    in_words,
    mean_features,
    reference_of,
    stain_statistics,
    valid_reference,
)
from analysis.detector.infer import detect
from analysis.detector.pixel_source import ArraySource
from analysis.detector.weights import LoadedModel
from tests.analysis.detector.conftest import tissue_like


def colour_of(haematoxylin: float, eosin: float) -> np.ndarray:
    vectors = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    density = haematoxylin * vectors[0] + eosin * vectors[1]
    return np.clip(np.rint(256 * np.exp(-density) - 1), 0, 255).astype(np.uint8)[None].repeat(50, 0)


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.8, 0.3), (0.2, 0.9), (0.5, 0.0)])
def test_the_stain_amounts_are_those_that_made_the_colour(haematoxylin: float, eosin: float) -> None:
    found = stain_statistics(colour_of(haematoxylin, eosin))
    assert found["haematoxylin"] == pytest.approx(haematoxylin, abs=0.02)
    assert found["eosin"] == pytest.approx(eosin, abs=0.02)
    assert set(found) == set(STAIN)
    assert stain_statistics(np.zeros((0, 3), np.uint8)) == {}


def test_statistics_are_the_means_over_the_pixels() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (999, 3), dtype=np.uint8)
    rgb[0] = 0
    found = stain_statistics(rgb)
    values = rgb.astype(np.float64)
    density = -np.log((values + 1) / 256).mean(axis=0)
    assert [found[f"density_{colour}"] for colour in "rgb"] == pytest.approx(density, abs=6e-5)
    saturation = (values.max(axis=1) - values.min(axis=1)) / np.maximum(values.max(axis=1), 1)
    assert found["saturation"] == pytest.approx(saturation.mean(), abs=6e-5)


def test_mean_features_weigh_windows_by_their_cells() -> None:
    a, b = np.full((2, 3, 4), 1.0, np.float32), np.full((2, 1, 4), 5.0, np.float32)
    assert mean_features([feature_sum(a), feature_sum(b)]) == (2.0, 2.0)
    assert mean_features([]) == ()


def slides(n: int, *, seed: int = 0, channels: int = 6) -> list[tuple[dict[str, float], list[float]]]:
    rng = np.random.default_rng(seed)
    return [
        (
            {name: float(v) for name, v in zip(STAIN, rng.normal(0.5, 0.05, len(STAIN)), strict=True)},
            list(rng.normal(size=channels)),
        )
        for _ in range(n)
    ]


def test_slides_like_the_reference_raise_no_word_and_unlike_ones_do() -> None:
    reference = json.loads(json.dumps(reference_of(slides(40))))
    assert valid_reference(reference)
    alarms = sum(bool(drift_of(stain, features, reference)[1]) for stain, features in slides(200, seed=1))
    assert alarms < 20
    stain, features = slides(1, seed=2)[0]
    values, words = drift_of(stain | {"eosin": 1.2}, [f + 8 for f in features], reference)
    assert values["z_eosin"] == pytest.approx(
        (1.2 - reference["stain"]["eosin"]["mean"]) / reference["stain"]["eosin"]["sd"], abs=0.01
    )
    assert len(words) == 2
    assert "eosin" in words[0]
    assert "above" in words[0]
    assert in_words(values) == words


def test_the_feature_distance_is_the_root_mean_square_of_standard_deviations() -> None:
    reference = reference_of(slides(40))
    assert reference is not None
    mean, sd = np.array(reference["features"]["mean"]), np.array(reference["features"]["sd"])
    stain = slides(1)[0][0]
    assert drift_of(stain, list(mean + 2 * sd), reference)[0]["feature_distance"] == pytest.approx(2, abs=1e-3)


def test_too_few_slides_make_no_reference_and_without_one_there_is_no_z() -> None:
    assert reference_of(slides(7)) is None
    stain, features = slides(1)[0]
    assert drift_of(stain, features, None) == (stain, ())


def test_features_of_another_network_are_not_compared() -> None:
    stain, _ = slides(1)[0]
    values, _ = drift_of(stain, [0.0] * 3, reference_of(slides(10)))
    assert "feature_distance" not in values
    assert "z_eosin" in values


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"stain": {}},
        {"feature_distance": {"mean": 1.0, "sd": 0.0}},
        {"features": {"mean": [1.0], "sd": []}},
    ],
)
def test_a_damaged_reference_is_known(change: dict[str, object]) -> None:
    reference = reference_of(slides(10))
    assert reference is not None
    assert valid_reference(reference)
    assert not valid_reference({**reference, **change})
    assert not valid_reference(None)


def test_a_run_carries_its_statistics_and_a_bleached_slide_has_other_ones(small_model: LoadedModel) -> None:
    rgb = tissue_like(512, 512)
    bleached = np.rint(255 - (255 - rgb.astype(np.float32)) * 0.6).astype(np.uint8)
    a, b = (detect(ArraySource(image, 1.0, 1.0), small_model) for image in (rgb, bleached))
    assert set(a.drift) == set(STAIN)
    assert len(a.features) == small_model.config.network.pyramid_channels
    assert b.drift["haematoxylin"] < a.drift["haematoxylin"] - 0.1
