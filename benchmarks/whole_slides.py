"""Whole slides judged by the CAMELYON rules, `standard` and `fast` side by side on the same slides.

python benchmarks/whole_slides.py --folder FOLDER              a folder laid out as CAMELYON16
python benchmarks/whole_slides.py --compose FOLDER             the composed test slides, written there first where they lack
    [--slides 40] [--seed 7] [--model M] [--profile standard] [--profile fast] [--cache FOLDER] [--record OUT.json]

What is found on each slide is kept in the cache (default: FOLDER/found), so a run that was stopped goes on. Intervals are
of 2,000 bootstrap draws of whole slides, shares with Wilson's; two profiles are compared on the same draws. Composed slides
of one set share a few hundred real patches: the intervals say how far another draw of slides would fall, not how far
other patients would.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.annotations import AnnotationError  # noqa: E402
from analysis.detector.card import ModelRefused, default_model_folder  # noqa: E402
from analysis.detector.compose import SetRequest, compose_set  # noqa: E402
from analysis.detector.composing.composed_slide import NoRoom  # noqa: E402
from analysis.detector.composing.tissue_pool import PoolTooSmall  # noqa: E402
from analysis.detector.detection_cache import DetectionCache, code_digest  # noqa: E402
from analysis.detector.infer import ScaleUnknown, write_whole  # noqa: E402
from analysis.detector.patch_file import PatchFileError  # noqa: E402
from analysis.detector.reading import PROFILES  # noqa: E402
from analysis.detector.reference_data import reference_data_folder  # noqa: E402
from analysis.detector.slide_evaluation import ReferenceTableError, is_composed, judge_folder  # noqa: E402
from analysis.detector.slide_figures import REPEATS, compare, summarise, threshold_of  # noqa: E402
from analysis.detector.slide_judging import JudgedSlide  # noqa: E402
from analysis.detector.weights import LoadedModel, load_model  # noqa: E402
from slides.wsi.errors import WsiError  # noqa: E402


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def folder_of(options: argparse.Namespace) -> Path:
    if options.folder:
        return Path(options.folder)
    folder = Path(options.compose)
    if not (folder / "reference.csv").is_file():
        request = SetRequest(folder, "test", slides=options.slides, seed=options.seed)
        compose_set(request, data=reference_data_folder(), say=say)
    return folder


def measure(
    folder: Path,
    model: LoadedModel,
    *,
    profiles: Sequence[str],
    cache: DetectionCache,
    repeats: int = REPEATS,
    workers: int = 0,
) -> dict[str, Any]:
    """Figures by profile, and `fast` against `standard` where both were read."""
    composed = is_composed(folder)
    found: dict[str, Any] = {"composed": composed, "machine": platform.processor() or platform.machine()}
    found["measured"] = time.strftime("%Y-%m-%d")
    found["code"] = code_digest()
    if (folder / "tags.json").is_file():
        note = json.loads((folder / "tags.json").read_text(encoding="utf-8"))
        found["set"] = {key: note[key] for key in ("split", "seed", "outline_split", "mpp", "pools")}
    judged: dict[str, list[JudgedSlide]] = {}
    for profile in profiles:
        judged[profile] = judge_folder(folder, model, profile=profile, say=say, cache=cache, workers=workers)
        threshold = threshold_of(model, profile=profile)
        found[profile] = summarise(
            judged[profile], model=model, profile=profile, threshold=threshold, composed=composed, repeats=repeats
        )
    if len(judged) == 2:
        (one, first), (other, second) = judged.items()
        thresholds = (threshold_of(model, profile=one), threshold_of(model, profile=other))
        found[f"{other}_minus_{one}"] = compare(first, second, thresholds=thresholds, repeats=repeats)
    return found


# -- as a table ----------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Markdown; each figure on composed slides is called so."""
    profiles = [name for name in PROFILES if name in found]
    kind = " (composed)" if found["composed"] else ""
    against: dict[str, Any] = next((value for key, value in found.items() if "_minus_" in key), {})
    head = ["measure" + kind, *profiles, *(["difference, paired"] if against else [])]
    rows = [[name, *(cell(found[p]) for p in profiles)] for name, cell in _ROWS]
    keys = dict(_COMPARED)
    for row in rows:
        if against:
            one = against.get(keys.get(row[0], ""))
            row.append(_with(one["difference"], one["interval"], sign="+") if one else "")
    tags = sorted({tag for p in profiles for tag in found[p]["false_positives_by_tag"]})
    for tag in tags:
        cells = [_tag_cell(found[p]["false_positives_by_tag"].get(tag)) for p in profiles]
        rows.append([f"false finds near {tag.replace('_', ' ')}", *cells, *([""] if against else [])])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _tag_cell(tag: dict[str, float] | None) -> str:
    if tag is None:
        return "0"
    return f"{tag['false']}" + (f" ({tag['per_mm2']:.2f} per mm2)" if "per_mm2" in tag else "")


def _number(value: float | None, *, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _with(value: float | None, interval: Sequence[float | None] | None, *, sign: str = "") -> str:
    low, high = interval or (None, None)
    return _number(value, sign=sign) + (
        f" [{_number(low, sign=sign)}, {_number(high, sign=sign)}]" if low is not None else ""
    )


def _part(of: dict[str, Any], *, n: str, k: str) -> str:
    return f"{of[k]}/{of[n]} = {_with(of['share'], of['interval'])}"


def _of_class(kind: str) -> Any:
    return lambda f: _part(f["sensitivity_by_class"][kind], n="lesions", k="found")


def _rates(key: str) -> Any:
    return lambda f: " ".join(f"{v:.2f}" for v in (f[key] or {}).values()) or "-"


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    return "; ".join(f"{name}: {'/'.join(str(n) for n in row)}" for name, row in zip(labels, counts, strict=True))


def _calibrated(f: dict[str, Any]) -> str:
    return "not calibrated" if f["calibration"] is None else _number(f["calibration"]["slide_ece"])


def _whole(f: dict[str, Any]) -> str:
    one = f["one_lesion_each"]
    found = one["metastases"] - one["in_no_piece"]
    return f"{one['in_one_piece']}/{found} found ones; {one['in_several_pieces']} in pieces, {one['found_lesions_over_several']} merged"


_ROWS: list[tuple[str, Any]] = [
    ("slides, with tumour, of them ITC only", lambda f: f"{f['slides']}, {f['tumour_slides']}, {f['itc_only_slides']}"),
    ("not assessed / not complete", lambda f: f"{f['not_assessed']} / {f['not_complete']}"),
    ("slide AUC", lambda f: _with(f["slide_auc"], f["slide_auc_interval"])),
    (
        "slide AUC without ITC-only slides",
        lambda f: _with(f["slide_auc_without_itc_only"], f["slide_auc_without_itc_only_interval"]),
    ),
    ("FROC, 2016 script", lambda f: _with(f["froc_2016"], f["froc_2016_interval"])),
    ("  at 1/4 1/2 1 2 4 8", _rates("froc_2016_at")),
    ("FROC, stepped script", lambda f: _with(f["froc_stepped"], f["froc_stepped_interval"])),
    ("  at 1/4 1/2 1 2 4 8, stepped", _rates("froc_stepped_at")),
    ("threshold", lambda f: _number(f["threshold"])),
    (
        "metastases found (no ITC)",
        lambda f: (
            f"{f['lesions_found']}/{f['lesions']} = "
            + (_with(f["lesion_sensitivity"][0], f["lesion_sensitivity"][1:]) if f["lesion_sensitivity"] else "-")
        ),
    ),
    ("macro found", _of_class("macro")),
    ("micro found", _of_class("micro")),
    ("ITC found (by size)", _of_class("itc")),
    ("false finds per slide", lambda f: _number(f["false_positives_per_slide"])),
    ("false finds per normal slide", lambda f: _number(f["false_positives_per_normal_slide"])),
    (
        "slide sensitivity",
        lambda f: _with(f["slide_calls"]["sensitivity"], f["slide_calls"]["sensitivity_interval"]),
    ),
    (
        "slide specificity",
        lambda f: _with(f["slide_calls"]["specificity"], f["slide_calls"]["specificity_interval"]),
    ),
    (
        "slide class (rows true: negative/itc/micro/macro)",
        lambda f: _confusion(f["size_class_labels"], f["size_class_confusion"]),
    ),
    (
        "slide class right outside the band",
        lambda f: _part(f["size_class_right_outside_band"], n="tumour_slides", k="right"),
    ),
    ("lesion class (rows true)", lambda f: _confusion(f["lesion_classes"]["labels"], f["lesion_classes"]["confusion"])),
    (
        "lesion class right outside the band",
        lambda f: _part(f["lesion_classes"]["outside_band"], n="lesions", k="right"),
    ),
    (
        "  and not flagged borderline",
        lambda f: _part(f["lesion_classes"]["outside_band_and_not_flagged"], n="lesions", k="right"),
    ),
    ("one lesion per metastasis", _whole),
    ("mask Dice, all slides together", lambda f: _with(f["dice"], f["dice_interval"])),
    ("mask Dice, median of tumour slides", lambda f: _number(f["dice_median_of_tumour_slides"])),
    ("slide ECE", _calibrated),
    (
        "seconds a slide, median / most",
        lambda f: f"{f['seconds_per_slide_median']:.1f} / {f['seconds_per_slide_most']:.1f}",
    ),
    ("tissue mm2, per second", lambda f: f"{f['tissue_mm2']}, {f['mm2_per_second']}"),
]
_COMPARED = [
    ("slide AUC", "slide_auc"),
    ("FROC, 2016 script", "froc_2016"),
    ("FROC, stepped script", "froc_stepped"),
    ("metastases found (no ITC)", "lesion_sensitivity"),
    ("false finds per slide", "false_positives_per_slide"),
    ("mask Dice, all slides together", "dice"),
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", type=Path, help="slides laid out as CAMELYON16")
    where.add_argument("--compose", type=Path, metavar="FOLDER", help="compose the test slides here where they lack")
    parser.add_argument("--slides", type=int, default=40, help="how many to compose")
    parser.add_argument("--seed", type=int, default=7, help="of the composed slides")
    parser.add_argument("--model", type=Path, help="folder of a model version (default: the shipped one)")
    parser.add_argument("--profile", choices=PROFILES, action="append", help="default: both")
    parser.add_argument("--cache", type=Path, help="default: `found` in the folder of the slides")
    parser.add_argument("--record", type=Path, metavar="OUT.json", help="keep all figures here")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="draws of the bootstrap")
    parser.add_argument("--threads", type=int, default=0, help="threads of the network (default: all cores)")
    options = parser.parse_args(arguments)
    try:
        folder = folder_of(options)
        model = load_model(options.model or default_model_folder())
        cache = DetectionCache(options.cache or folder / "found")
        wanted = options.profile or list(PROFILES)
        profiles = [name for name in PROFILES if name in wanted]
        found = measure(folder, model, profiles=profiles, cache=cache, repeats=options.repeats, workers=options.threads)
    except (
        AnnotationError,
        ModelRefused,
        NoRoom,
        PoolTooSmall,
        PatchFileError,
        ReferenceTableError,
        ScaleUnknown,
        WsiError,
        OSError,
    ) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if options.record:
        write_whole(options.record, (json.dumps(found, indent=1) + "\n").encode())
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
