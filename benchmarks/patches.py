"""Trained models judged on real patches of the test fold: one version for each seed, side by side.

python benchmarks/patches.py [MODEL ...] [--record MODEL]    (default: the shipped model)

For each model: AUC at 1.0 and 2.0 um/px with DeLong's interval, by scanner; false positive rate on the hard negatives of
the test fold at the threshold that finds 90 % of its tumour patches; AUC on CAMELYON16 patches cut at level 0, by slide,
none of which is trained on. Where the model looks again at candidates, AUC and rate at 1.0 um/px also of the score that a candidate
gets from all looks. Nearly all hard negatives come compressed and no tumour patch does, so their rate is also given with all patches
compressed alike (`..._alike`): what is left when compression tells nothing. Then mean, lowest and highest over the models, beside the
goals. The slide of a patch is not known: patches of one slide stand on both sides of the split, and the intervals take patches for
independent.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.card import ModelRefused, default_model_folder  # noqa: E402
from analysis.detector.evaluate import record_evaluation  # noqa: E402
from analysis.detector.patch_file import PatchFileError, compressed_alike  # noqa: E402
from analysis.detector.patch_looks import Looker, lookers_of, scores_of_all_looks  # noqa: E402
from analysis.detector.reference_data import ReferenceDataMissing  # noqa: E402
from analysis.detector.study import judge, rate_at_sensitivity  # noqa: E402
from analysis.detector.training.material import Material, load_material  # noqa: E402
from analysis.detector.turning import WAYS  # noqa: E402
from analysis.detector.weights import LoadedModel, load_model  # noqa: E402
from analysis.metrics.intervals import Interval  # noqa: E402
from analysis.metrics.roc import auc_interval  # noqa: E402

COARSE_MPP = 2.0
ALIKE = "false_positive_rate_compressed_alike"
GOALS = {
    "auc": ("at least", 0.975),
    "auc_2um": ("at least", 0.940),
    "hard_negative_rate": ("at most", 0.12),
    "level0_auc": ("at least", 0.96),
    "second_look_auc": ("at least", 0.975),
    "second_look_auc_2um": ("at least", 0.940),
    "second_look_hard_negative_rate": ("at most", 0.12),
    "hard_negative_rate_alike": ("at most", 0.12),
    "second_look_hard_negative_rate_alike": ("at most", 0.12),
}


def figures(model: LoadedModel) -> dict[str, Any]:
    train = dataclasses.replace(model.config.train, regions_every=0)
    config = dataclasses.replace(model.config, train=train)
    material = load_material(config, rng=np.random.default_rng(0))
    found = {
        "version": model.version,
        "sha256": model.sha256,
        "seed": train.seed,
        "looks": looks_of(model),
        **judge(model.network, config, material),
    }
    return {**found, "second_look": of_all_looks(model, material)} if lookers_of(model) else found


def looks_of(model: LoadedModel) -> list[dict[str, Any]]:
    """Each with the version its network comes from, backbone, um/px and how many ways up; the reader's first."""
    reader = Looker(model.version, model.network, model.config.read.mpp, WAYS[:1])
    return [
        {
            "version": look.version,
            "backbone": look.network.config.backbone,
            "mpp": look.mpp,
            "ways": len(look.ways),
        }
        for look in (reader, *lookers_of(model))
    ]


def of_all_looks(model: LoadedModel, material: Material) -> dict[str, Any]:
    """Of the score that `second_look.all_looks` makes of the reader's one look and of those of all that look again."""
    test, hard = material.test, material.test_hard_negative
    scores, hard_scores = (scores_of(model, patches.rgb) for patches in (test, hard))
    interval = auc_interval(test.label == 1, scores)
    alike = (scores_of(model, compressed_alike(some).rgb) for some in (test.where(test.label == 1), hard))
    coarse = scores_of_all_looks(model, test.rgb, patch_mpp=model.config.data.patch_mpp, pixels_mpp=COARSE_MPP)[1]
    coarse_interval = auc_interval(test.label == 1, coarse)
    figures = {
        "n": len(test),
        "hard_negatives": len(hard),
        "false_positive_rate": rate_at_sensitivity(scores[test.label == 1], hard_scores),
        "false_positive_rate_compressed_alike": rate_at_sensitivity(*alike),
    }
    return {**figures, **_with_ends("auc", interval), **_with_ends("auc_2um", coarse_interval)}


def _with_ends(name: str, found: Interval | None) -> dict[str, Any]:
    if found is None:
        return {name: None}
    return {name: round(found.value, 5), f"{name}_interval": [round(found.low, 5), round(found.high, 5)]}


def scores_of(model: LoadedModel, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return scores_of_all_looks(model, rgb, patch_mpp=model.config.data.patch_mpp)[1]


def row(found: dict[str, Any]) -> dict[str, float | None]:
    return {
        "auc": found["test"]["auc"],
        "auc_2um": found.get("test_coarse", {}).get("auc"),
        "hard_negative_rate": found["hard_negatives"].get("false_positive_rate"),
        "level0_auc": found.get("level0_patches", {}).get("auc"),
        "second_look_auc": found.get("second_look", {}).get("auc"),
        "second_look_auc_2um": found.get("second_look", {}).get("auc_2um"),
        "second_look_hard_negative_rate": found.get("second_look", {}).get("false_positive_rate"),
        "hard_negative_rate_alike": found["hard_negatives"].get(ALIKE),
        "second_look_hard_negative_rate_alike": found.get("second_look", {}).get(ALIKE),
    }


def over_seeds(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    summary = {}
    for name, (word, goal) in GOALS.items():
        values = [v for v in (r[name] for r in rows) if v is not None]
        if values:
            mean = float(np.mean(values))
            reached = mean >= goal if word == "at least" else mean <= goal
            summary[name] = {
                "mean": round(mean, 4),
                "lowest": min(values),
                "highest": max(values),
                "models": len(values),
                "goal": f"{word} {goal}",
                "reached": reached,
            }
    return summary


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL", help="folders with model.json and weights")
    parser.add_argument("--record", type=Path, metavar="MODEL", help="keep the figures in this model's card")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        found = [figures(load_model(folder)) for folder in options.models or [default_model_folder()]]
        document = {"models": found, "over_models": over_seeds([row(one) for one in found])}
        if options.record:
            record_evaluation(options.record, "patches_by_seed", document)
    except (ModelRefused, PatchFileError, ReferenceDataMissing, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
