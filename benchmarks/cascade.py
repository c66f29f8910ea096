"""Accuracy against cost of the ways to read a slide.

At 1.0 um/px with and without the second look and the scan's word, at 2.0 um/px alone, and at 2.0 with a glance and another
read where something was found.

python benchmarks/cascade.py FOLDER [--model M] [--glance 0.4 0.6 0.7] [--cache FOLDER] [--timed 6] [--record OUT.json] [--svg OUT.svg]

FOLDER: validation slides laid out as CAMELYON16; never the test slides, for the limits are chosen by this. First every slide
is read in every way, which may stop and go on with --cache; this gives slide AUC, FROC (2016 script), share of metastases
found anywhere (ITC left out) and false finds a slide at equal sensitivity. Then --timed slides, spread over the folder, are
read once more in each way in turn, one thread each, for CPU seconds a mm2 of tissue (the sandboxed decoding included): this
part wants a quiet machine.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

from detection import product_cost  # noqa: E402

from analysis.detector.annotations import AnnotationError  # noqa: E402
from analysis.detector.card import ModelRefused, default_model_folder  # noqa: E402
from analysis.detector.detection_cache import DetectionCache  # noqa: E402
from analysis.detector.engine import open_engine  # noqa: E402
from analysis.detector.evaluate import scan_alone  # noqa: E402
from analysis.detector.infer import ScaleUnknown, write_whole  # noqa: E402
from analysis.detector.learning_curve import Panel, Point, figure  # noqa: E402
from analysis.detector.slide_evaluation import ReferenceTableError, judge_folder, read_reference  # noqa: E402
from analysis.detector.slide_figures import slide_auc  # noqa: E402
from analysis.detector.slide_judging import JudgedSlide  # noqa: E402
from analysis.detector.weights import LoadedModel, load_model  # noqa: E402
from analysis.metrics.froc import froc_2016  # noqa: E402
from analysis.metrics.roc import threshold_at_sensitivity  # noqa: E402
from slides.wsi.errors import WsiError  # noqa: E402

SENSITIVITY = 0.9
Ways = dict[str, tuple[str, LoadedModel]]
"""Profile and model, by name."""


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
    return {
        "slides": len(judged),
        "slide_auc": slide_auc(judged),
        "froc_2016": froc_2016(hits),
        "found_at_any_score": sum(score > 0 for score in lesions) / len(lesions) if lesions else None,
        "false_per_slide_at_90_percent": false / len(judged) if threshold > 0 else None,
    }


def cost(slides: Sequence[Path], ways: Ways) -> dict[str, dict[str, float]]:
    """By way; the ways take turns on each slide, so that a machine that slows down slows all of them."""
    seconds, mm2 = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for slide in slides:
        for name, (profile, model) in ways.items():
            spent = product_cost(slide, model, open_engine(model, workers=1), profile=profile)
            seconds[name] += spent.cpu_s
            mm2[name] += spent.mm2
            print(f"{slide.name}, {name}: {spent.cpu_s:.1f} CPU s", file=sys.stderr)
    return {name: {"timed_slides": len(slides), "cpu_s_per_mm2": round(seconds[name] / mm2[name], 4)} for name in ways}


def plane(found: dict[str, dict[str, Any]]) -> str:
    """Both accuracies against CPU seconds a mm2; the ways are numbered as in the table."""
    numbered = [(str(n), one) for n, one in enumerate(found.values(), 1)]
    numbered.sort(key=lambda pair: pair[1]["cpu_s_per_mm2"])
    panels = []
    for words, key in (("slide AUC", "slide_auc"), ("FROC", "froc_2016")):
        points = [Point(round(one["cpu_s_per_mm2"], 3), *(float(one[key]),) * 3, n) for n, one in numbered]
        panels.append(Panel(f"{words} against cost", "CPU seconds a mm2 of tissue", {words: points}, joined=False))
    return figure(panels)


COLUMNS = {
    "slide_auc": ("slide AUC", 3),
    "froc_2016": ("FROC", 3),
    "found_at_any_score": ("found at any score", 3),
    "false_per_slide_at_90_percent": ("false finds a slide at 90 %", 2),
    "cpu_s_per_mm2": ("CPU s per mm2", 3),
}


def table(found: dict[str, dict[str, Any]]) -> str:
    """In Markdown; what a way does not reach is left blank."""
    rows = [["", "way", *(words for words, _ in COLUMNS.values())], ["---"] * (len(COLUMNS) + 2)]
    for n, (name, one) in enumerate(found.items(), 1):
        cells = ["" if one[key] is None else f"{one[key]:.{digits}f}" for key, (_, digits) in COLUMNS.items()]
        rows.append([str(n), name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--glance", type=float, nargs="+", default=[0.4, 0.6, 0.7])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--timed", type=int, default=6, help="slides timed (0: none)")
    parser.add_argument("--record", type=Path, metavar="OUT.json")
    parser.add_argument("--svg", type=Path, help="write the accuracy-cost plane")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = load_model(options.model or default_model_folder())
        ways: Ways = {"standard": ("standard", model)}
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
                say=lambda text: print(text, file=sys.stderr),
            )
            found[name] = figures(judged)
        paths = [one.path for one in read_reference(options.folder)]
        timed = [paths[i] for i in np.linspace(0, len(paths) - 1, min(options.timed, len(paths))).astype(int)]
        for name, spent in cost(timed, ways).items() if timed else ():
            found[name] |= spent
    except (ModelRefused, ReferenceTableError, AnnotationError, ScaleUnknown, WsiError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if timed:
        print(table(found), file=sys.stderr)
        if options.svg:
            write_whole(options.svg, plane(found).encode())
    text = json.dumps(found, indent=1) + "\n"
    if options.record:
        write_whole(options.record, text.encode())
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
