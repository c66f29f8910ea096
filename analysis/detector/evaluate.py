"""Judge a model version.

python -m analysis.detector.evaluate patches FILE.npz [--json]   labelled patches: AUC, accuracy, AUC per stain
python -m analysis.detector.evaluate slides FOLDER [--json]      slides with ASAP XML and reference.csv: AUC, FROC, size classes
python -m analysis.detector.evaluate calibrate --record FILE     probabilities, threshold, triage band from validation slides
python -m analysis.detector.evaluate card                        writes the model card page from the model folder
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.detector.annotations import AnnotationError
from analysis.detector.calibrating import CannotCalibrate, Rules, calibrate, suspicion_threshold
from analysis.detector.card import ModelRefused, default_model_folder, read_card
from analysis.detector.detection_cache import DetectionCache
from analysis.detector.drift import reference_of
from analysis.detector.infer import ScaleUnknown, write_whole
from analysis.detector.model_card import CURVE_FILE, card_page, curve_of
from analysis.detector.patch_file import PatchFileError, load_patches
from analysis.detector.patch_looks import scores_of_all_looks
from analysis.detector.reading import PROFILES
from analysis.detector.slide_evaluation import ReferenceTableError, evaluate_folder
from analysis.detector.slide_figures import TIMES
from analysis.detector.training.material import with_scanners
from analysis.detector.training.patch_scores import score_patches
from analysis.detector.validation_record import RecordDamaged, load_record
from analysis.detector.weights import LoadedModel, load_model, write_card
from analysis.metrics.intervals import bootstrap
from analysis.metrics.roc import auc
from slides.wsi.errors import WsiError

PATCH_MPP = 0.97


def evaluate_patches(
    file: Path,
    model: LoadedModel,
    *,
    fold: int | None = None,
    patch_mpp: float = PATCH_MPP,
    mpp: float | None = None,
    on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> dict[str, Any]:
    """Of the score that a candidate of a slide gets: by all looks (`patch_looks.py`); `auc_one_look` of the first alone.

    Patches without a label (-1) are left out. `mpp` is the spacing at which the network reads (default: the model's); at
    another one there is one look. `on_progress` may raise, to end it early. Raises PatchFileError.
    """
    patches = load_patches(file)
    chosen = patches.label >= 0
    if fold is not None:
        chosen &= patches.fold == fold
    patches = patches.where(chosen)
    if not len(patches):
        raise PatchFileError(f"{file} holds no labelled patch{f' of fold {fold}' if fold is not None else ''}")
    mpp = mpp or model.config.read.mpp

    def progress(fraction: float) -> None:
        on_progress("reading patches", fraction)

    if mpp == model.config.read.mpp:
        one_look, scores = scores_of_all_looks(model, patches.rgb, patch_mpp=patch_mpp, on_progress=progress)
    else:
        one_look = score_patches(model.network, patches.rgb, patch_mpp=patch_mpp, mpp=mpp, on_progress=progress)
        scores = one_look.astype(np.float64)
    truth = patches.label == 1
    threshold = float(model.card.get("patch_threshold", 0.5))
    pairs = list(zip(truth.tolist(), scores.tolist(), strict=True))
    interval = bootstrap(pairs, lambda drawn: auc([t for t, _ in drawn], [s for _, s in drawn]), repeats=300)
    patches = with_scanners(patches, model.config.data)
    by_stain = {str(s): auc(truth[patches.stain == s], scores[patches.stain == s]) for s in np.unique(patches.stain)}
    return {
        "file": file.name,
        "fold": fold,
        "model": {"version": model.version, "sha256": model.sha256},
        "mpp": mpp,
        "n": len(patches),
        "positive": int(truth.sum()),
        "auc": auc(truth, scores),
        "auc_interval": [_or_none(interval.low), _or_none(interval.high)],
        "auc_one_look": auc(truth, one_look),
        "accuracy": float(((scores >= threshold) == truth).mean()),
        "threshold": threshold,
        "auc_by_stain": by_stain,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


def _patches(options: argparse.Namespace) -> dict[str, Any]:
    model = load_model(options.model or default_model_folder())
    found = evaluate_patches(options.file, model, fold=options.fold, patch_mpp=options.patch_mpp, mpp=options.mpp)
    if options.record:
        record_evaluation(options.model or default_model_folder(), "patches", found)
    return found


def _slides(options: argparse.Namespace) -> dict[str, Any]:
    model = load_model(options.model or default_model_folder())

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.scan:
        model = scan_alone(model)

    def keep(record: dict[str, Any]) -> None:
        write_whole(options.validation_record, (json.dumps(record) + "\n").encode())

    keep_record = keep if options.validation_record else None
    cache = DetectionCache(options.cache) if options.cache else None
    found = evaluate_folder(
        options.folder,
        model,
        profile=options.profile,
        say=say,
        keep_record=keep_record,
        cache=cache,
        workers=options.threads,
    )
    if options.record:
        summary = {key: value for key, value in found.items() if key not in ("slides_detail", *TIMES)}
        record_evaluation(options.model or default_model_folder(), f"slides_{options.profile}", summary)
    return found


def scan_alone(model: LoadedModel) -> LoadedModel:
    """What the scan of `fast` says, as a reading of its own with every find of it: by the scan network where there is one."""
    read, reads = model.config.read, model.scanner or model
    grow = read.scan_grow_probability
    read = dataclasses.replace(read, mpp=read.scan_mpp, seed_probability=grow, grow_probability=grow, second_look=False)
    return dataclasses.replace(reads, config=dataclasses.replace(reads.config, read=read))


def _calibrate(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.model or default_model_folder()
    content = read_card(folder)
    record = load_record(options.record)
    scanned = load_record(options.scan_record) if options.scan_record else None
    for one in filter(None, (record, scanned)):
        if one.weights_sha256 != content["sha256"]:
            raise RecordDamaged(f"the record was made by other weights than those of {folder.name}; evaluate again")
    found: dict[str, Any] = {}
    if scanned is not None:
        found["suspicion"] = suspicion_threshold(scanned, record, sensitivity=options.sensitivity)
        content["config"]["read"]["scan_score"] = found["suspicion"]["value"]
        content["card"]["suspicion"] = found["suspicion"]
    fit = calibrate(record, Rules(alpha=options.alpha, sensitivity=options.sensitivity))
    found["calibration"] = fit.to_json()
    content["card"].setdefault("calibration", {})[fit.profile] = fit.to_json()
    if fit.profile == "standard":
        content["card"]["threshold"] = fit.threshold["score"]
    reference = reference_of([(slide.drift, slide.features) for slide in record.slides])
    if reference is not None:
        content["card"].setdefault("drift_reference", {})[fit.profile] = reference
    write_card(folder, content)
    return {**found, "triage": fit.triage.promise, "drift_reference_slides": reference and reference["slides"]}


def _card(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.model or default_model_folder()
    content = read_card(folder)
    curve = curve_of(content["card"].get("studies", []))
    if curve is not None:
        write_whole(options.out.parent / CURVE_FILE, curve.encode())
    write_whole(options.out, card_page(content).encode())
    return {"written": str(options.out), "model": folder.name}


def record_evaluation(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Keep a result in the card; a model version needs one before it may be made active."""
    content = read_card(folder)
    content["card"].setdefault("evaluation", {})[name] = result
    write_card(folder, content)


def _text(found: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in found.items() if key != "slides_detail")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.detector.evaluate", description="Judge a model version.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", type=Path, help="folder of a model version (default: the shipped one)")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--threads", type=int, default=0, help="threads of the network (default: all cores)")
    patches = commands.add_parser("patches", parents=[common], help="labelled patches (.npz)")
    patches.add_argument("file", type=Path, metavar="FILE.npz")
    patches.add_argument("--fold", type=int, help="only patches of this fold")
    patches.add_argument("--patch-mpp", type=float, default=PATCH_MPP, help="um per px of the patches")
    patches.add_argument("--mpp", type=float, help="um per px at which the network reads")
    patches.add_argument("--record", action="store_true", help="keep the result in the model's card")
    patches.set_defaults(act=_patches)
    slides = commands.add_parser("slides", parents=[common], help="folder of slides with ASAP XML and reference.csv")
    slides.add_argument("folder", type=Path, metavar="FOLDER")
    slides.add_argument("--profile", choices=PROFILES, default="standard")
    slides.add_argument("--record", action="store_true", help="keep the result in the model's card")
    slides.add_argument(
        "--validation-record",
        type=Path,
        metavar="FILE.json",
        help="keep what `calibrate` needs; validation slides only",
    )
    slides.add_argument(
        "--scan", action="store_true", help="read once, at the spacing of the scan of `fast` (for --scan-record)"
    )
    slides.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep what is found on each slide, and go on from it"
    )
    slides.set_defaults(act=_slides)
    calibration = commands.add_parser(
        "calibrate", parents=[common], help="fit probabilities, threshold and triage band; kept in the model's card"
    )
    calibration.add_argument("--record", type=Path, required=True, metavar="FILE.json", help="of `slides`")
    calibration.add_argument(
        "--scan-record", type=Path, metavar="FILE.json", help="of `slides --scan`: sets where `fast` looks again"
    )
    calibration.add_argument("--alpha", type=_share, default=Rules.alpha, help="share that the triage band may miss")
    calibration.add_argument(
        "--sensitivity", type=_share, default=Rules.sensitivity, help="share of lesions that the threshold must find"
    )
    calibration.set_defaults(act=_calibrate)
    card = commands.add_parser("card", parents=[common], help="write the model card page")
    card.add_argument("--out", type=Path, default=Path("docs/reference/model-card.md"))
    card.set_defaults(act=_card)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    act: Callable[[argparse.Namespace], dict[str, Any]] = options.act
    try:
        found = act(options)
    except (
        PatchFileError,
        ModelRefused,
        AnnotationError,
        ReferenceTableError,
        ScaleUnknown,
        RecordDamaged,
        CannotCalibrate,
        WsiError,
        OSError,
    ) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1) if options.json else _text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
