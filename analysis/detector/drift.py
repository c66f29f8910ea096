"""How far a slide lies from the slides that a model version was validated on: its stain, and what the network sees.

Per slide, over its tissue: mean optical densities of red, green and blue, haematoxylin and eosin amounts (colour
deconvolution, Ruifrok and Johnston 2001), saturation, and the mean of the network's P4 features. The reference in the
card (`drift_reference`, one for each profile) holds means and standard deviations of these over its slides; the feature
distance is Mahalanobis with the diagonal of the covariance, divided by the root of the number of features, since a few
dozen slides do not carry more. Numpy alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
STAIN = ("density_r", "density_g", "density_b", "haematoxylin", "eosin", "saturation")
WORDS = {
    "density_r": "red density",
    "density_g": "green density",
    "density_b": "blue density",
    "haematoxylin": "haematoxylin",
    "eosin": "eosin",
    "saturation": "colour saturation",
    "feature_distance": "what the network sees",
}
FEWEST_SLIDES = 8
LIMIT_Z = 3.0
"""Beyond this many standard deviations of the reference slides a value is said to be unlike them."""
_SMALLEST_SD = {"feature": 1e-3, "stain": 0.01}
# absorption of red, green and blue by haematoxylin, eosin and what remains (Ruifrok and Johnston 2001, table 1)
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
_UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True))


def stain_statistics(rgb: NDArray[np.uint8]) -> dict[str, float]:
    """rgb (n, 3) of tissue; empty without any. Densities are natural logarithms of 256 / (value + 1)."""
    if not len(rgb):
        return {}
    colours = [np.ascontiguousarray(rgb[:, colour]) for colour in range(3)]
    # how often each value occurs says as much as the values, and each is worked out once
    density = -np.log((np.arange(256) + 1) / 256)
    mean = np.array([np.bincount(colour, minlength=256) @ density / len(rgb) for colour in colours])
    amounts = mean @ _UNMIX  # linear: the amount of the mean is the mean of the amounts
    red, green, blue = colours
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    pairs = np.bincount(brightest.astype(np.intp) * 256 + darkest, minlength=256 * 256)
    level = np.arange(256.0)
    # summed and not a dot product, as in `lesions.ellipse_major_um`
    saturation = (pairs * ((level[:, None] - level) / np.maximum(level[:, None], 1)).ravel()).sum() / len(rgb)
    values = (*mean, amounts[0], amounts[1], saturation)
    return {name: round(float(value), 4) for name, value in zip(STAIN, values, strict=True)}


def mean_features(sums: Sequence[NDArray[np.float32]]) -> tuple[float, ...]:
    """sums: for each window (channels + 1,), the sum of each channel over its cells, then the number of cells."""
    if not sums:
        return ()
    total = np.sum([np.asarray(one, np.float64) for one in sums], axis=0)
    return tuple(round(float(v), 5) for v in total[:-1] / total[-1]) if total[-1] else ()


def feature_sum(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """features (channels, h, w) of the cells that a window owns -> (channels + 1,) for `mean_features`."""
    sums = features.sum(axis=(1, 2), dtype=np.float64)
    return np.append(sums, features.shape[1] * features.shape[2]).astype(np.float32)


def reference_of(slides: Sequence[tuple[Mapping[str, float], Sequence[float]]]) -> dict[str, Any] | None:
    """From the statistics and mean features of each slide; None with fewer than FEWEST_SLIDES."""
    known = [(stain, features) for stain, features in slides if all(name in stain for name in STAIN)]
    if len(known) < FEWEST_SLIDES:
        return None
    reference: dict[str, Any] = {"format": FORMAT, "slides": len(known), "stain": {}}
    for name in STAIN:
        values = np.array([stain[name] for stain, _ in known])
        reference["stain"][name] = _mean_sd(values, _SMALLEST_SD["stain"])
    features = [list(f) for _, f in known if f]
    if len(features) == len(known) and len({len(f) for f in features}) == 1:
        matrix = np.array(features)
        mean, sd = matrix.mean(axis=0), np.maximum(matrix.std(axis=0, ddof=1), _SMALLEST_SD["feature"])
        reference["features"] = {"mean": _rounded(mean), "sd": _rounded(sd)}
        # each slide against the others: against a mean that holds itself it would seem too near
        distances = [_left_out_distance(matrix, i) for i in range(len(matrix))]
        reference["feature_distance"] = _mean_sd(np.array(distances), _SMALLEST_SD["stain"])
    return reference


def reference_for(card: Mapping[str, Any], profile: str) -> Mapping[str, Any] | None:
    """The card's reference for this profile, if it has one that can be used."""
    stored = (card.get("drift_reference") or {}).get(profile)
    return stored if valid_reference(stored) else None


def drift_of(
    stain: Mapping[str, float], features: Sequence[float], reference: Mapping[str, Any] | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """All statistics of a slide with their `z_...`, and what is unlike the reference in words.

    Without a reference: the statistics alone. A reference of other features is taken for none.
    """
    values = dict(stain)
    if not stain or not reference:
        return values, ()
    limits = dict(reference["stain"])
    known = reference.get("features")
    if known and len(known["mean"]) == len(features):
        sd = np.array(known["sd"])
        gap = (np.asarray(features, np.float64) - np.array(known["mean"])) / sd
        values["feature_distance"] = round(float(np.sqrt((gap**2).mean())), 4)
        limits["feature_distance"] = reference["feature_distance"]
    z = {name: (values[name] - limit["mean"]) / limit["sd"] for name, limit in limits.items() if name in values}
    values |= {f"z_{name}": round(float(value), 2) for name, value in z.items()}
    return values, in_words(values)


def in_words(values: Mapping[str, float]) -> tuple[str, ...]:
    """What lies beyond the limits: the stain as one line, what the network sees as another. From stored values too."""
    odd = [(name, values[f"z_{name}"]) for name in STAIN if abs(values.get(f"z_{name}", 0.0)) > LIMIT_Z]
    lines = []
    if odd:
        listed = ", ".join(f"{WORDS[name]} {abs(z):.1f} SD {'above' if z > 0 else 'below'}" for name, z in odd)
        lines.append(f"Stain unlike the reference slides: {listed}.")
    if (z := values.get("z_feature_distance", 0.0)) > LIMIT_Z:
        lines.append(f"Tissue unlike the reference slides in what the network sees: {z:.1f} SD above.")
    return tuple(lines)


def _left_out_distance(matrix: NDArray[np.float64], i: int) -> float:
    others = np.delete(matrix, i, axis=0)
    sd = np.maximum(others.std(axis=0, ddof=1), _SMALLEST_SD["feature"])
    return float(np.sqrt((((matrix[i] - others.mean(axis=0)) / sd) ** 2).mean()))


def _mean_sd(values: NDArray[np.float64], smallest: float) -> dict[str, float]:
    sd = float(values.std(ddof=1))
    return {"mean": round(float(values.mean()), 5), "sd": round(max(sd, smallest), 5)}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{v:.5g}") for v in values]


def valid_reference(stored: Any) -> bool:
    """Whether a `drift_reference` of a card can be used."""
    try:
        pairs = [stored["stain"][name] for name in STAIN]
        if "features" in stored:
            pairs.append(stored["feature_distance"])
            if len(stored["features"]["mean"]) != len(stored["features"]["sd"]):
                return False
            pairs += [{"mean": 0.0, "sd": sd} for sd in stored["features"]["sd"]]
        usable = all(pair["sd"] > 0 and math.isfinite(pair["mean"]) and math.isfinite(pair["sd"]) for pair in pairs)
        return bool(stored["format"] == FORMAT and usable)
    except (KeyError, TypeError):
        return False
