"""Accuracy against cost of the ways to read a slide.

At 1.0 um/px with and without the second look and the scan's word, at 2.0 um/px alone, and at 2.0 with a glance and another
read where something was found.

python benchmarks/cascade.py FOLDER [--model M] [--glance 0.4 0.6 0.7] [--cache FOLDER] [--svg OUT.svg]

FOLDER: validation slides laid out as CAMELYON16; never the test slides, for the limits are chosen by this. Each slide is read with one thread, and its seconds are those of the clock: run it on a quiet machine. Prints slide AUC, FROC
(2016 script), share of metastases found anywhere (ITC left out), false finds a slide at equal sensitivity, and seconds.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.annotations import AnnotationError  # noqa: E402
from analysis.detector.card import ModelRefused, default_model_folder  # noqa: E402
from analysis.detector.detection_cache import DetectionCache  # noqa: E402
from analysis.detector.evaluate import scan_alone  # noqa: E402
from analysis.detector.infer import ScaleUnknown, write_whole  # noqa: E402
from analysis.detector.learning_curve import Panel, Point, figure  # noqa: E402
from analysis.detector.slide_evaluation import ReferenceTableError, judge_folder  # noqa: E402
from analysis.detector.slide_figures import slide_auc  # noqa: E402
from analysis.detector.slide_judging import JudgedSlide  # noqa: E402
from analysis.detector.weights import LoadedModel, load_model  # noqa: E402
from analysis.metrics.froc import froc_2016  # noqa: E402
from analysis.metrics.roc import threshold_at_sensitivity  # noqa: E402
from slides.wsi.errors import WsiError  # noqa: E402

SENSITIVITY = 0.9


def reading_with(model: LoadedModel, **changes: float | bool) -> LoadedModel:
    read = dataclasses.replace(model.config.read, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(model, config=dataclasses.replace(model.config, read=read))


def once(model: LoadedModel) -> LoadedModel:
    return reading_with(model, second_look=False)


def figures(judged: list[JudgedSlide]) -> dict[str, Any]:
    hits = [one.hits for one in judged]
    lesions = [score for one in hits for score in one.lesions]
    threshold = threshold_at_sensitivity([True] * len(lesions), lesions, SENSITIVITY) or 0.0
    false = sum(score >= threshold > 0 for one in hits for score in one.false_positives)
    seconds = sum(one.detection.seconds["total"] for one in judged)
    mm2 = sum(one.detection.tissue.mm2 for one in judged)
    return {
        "slide_auc": slide_auc(judged),
        "froc_2016": froc_2016(hits),
        "found_at_any_score": sum(score > 0 for score in lesions) / len(lesions) if lesions else None,
        "false_per_slide_at_90_percent": false / len(judged) if threshold > 0 else None,
        "seconds_per_slide": round(seconds / len(judged), 2),
        "seconds_per_mm2": round(seconds / mm2, 4),
    }


def plane(found: dict[str, dict[str, Any]]) -> str:
    """Both accuracies against seconds a mm2."""
    ordered = sorted(found.values(), key=lambda one: one["seconds_per_mm2"])
    lines = {
        words: [Point(one["seconds_per_mm2"], *(float(one[key]),) * 3) for one in ordered]
        for words, key in (("slide AUC", "slide_auc"), ("FROC", "froc_2016"))
    }
    return figure([Panel("Accuracy against cost", "seconds a mm2 of tissue", lines)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--glance", type=float, nargs="+", default=[0.4, 0.6, 0.7])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--svg", type=Path, help="write the accuracy-cost plane")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = load_model(options.model or default_model_folder())
        ways = {"standard": ("standard", model)}
        ways["standard, without the second look"] = ("standard", reading_with(model, second_look=False))
        if model.scanner is not None:
            by_itself = dataclasses.replace(model, scanner=None)
            ways["standard, whatever the scan says"] = ("standard", by_itself)
            ways["the reading's network alone at the scan's spacing"] = ("standard", once(scan_alone(by_itself)))
        ways["scan alone"] = ("standard", once(scan_alone(model)))
        for value in options.glance:
            ways[f"fast, read from {value:g} at a glance on"] = ("fast", reading_with(model, glance_score=value))
        found = {}
        cache = DetectionCache(options.cache) if options.cache else None
        for name, (profile, reading) in ways.items():
            judged = judge_folder(
                options.folder,
                reading,
                profile=profile,
                cache=cache,
                workers=1,
                say=lambda text: print(text, file=sys.stderr),
            )
            found[name] = figures(judged)
    except (ModelRefused, ReferenceTableError, AnnotationError, ScaleUnknown, WsiError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if options.svg:
        write_whole(options.svg, plane(found).encode())
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
