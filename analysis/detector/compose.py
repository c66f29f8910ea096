"""Compose annotated slides of real tissue. Every figure measured on such slides is to be called "composed": texture is
real, anatomy is not.

python -m analysis.detector.compose FOLDER [--slides N] [--lesions macro,micro,itc]
    some slides to show: NAME.tif (pyramid with scale), NAME.xml (ASAP outlines, for slides with lesions), reference.csv,
    and NAME.json with where the tissue is from
python -m analysis.detector.compose FOLDER --split test [--slides 40] [--seed 7] [--masks]
    a set, laid out as CAMELYON16: images/, annotations/, reference.csv, and with --masks masks/; tags.json says what each
    slide holds and which patches it is made of, tags/NAME.png what lies where (bits, a cell of 8 um)
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shapely import affinity

from analysis.detector.annotations import write_asap
from analysis.detector.composing.artefacts import PlacedArtefact
from analysis.detector.composing.composed_slide import LONGEST_UM, ComposedSlide, NoRoom, SlidePlan, compose_slide
from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.sheets import SHEET_PX, QuiltedTissue, SheetTissue
from analysis.detector.composing.slide_file import doubled, write_mask, write_pyramid
from analysis.detector.composing.slide_set import (
    CANVAS_PX,
    ITC_ONLY_SHARE,
    MICRO_SHARE,
    PlannedSlide,
    lay_artefacts,
    plan_set,
)
from analysis.detector.composing.splits import (
    OUTLINES_OF,
    SPLITS,
    VALIDATION_PERCENT,
    StainTissue,
    load_split,
    load_tissue,
    tissue_of,
)
from analysis.detector.composing.tags import TAG_BITS
from analysis.detector.composing.tissue_pool import PoolTooSmall, build_pools
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.reference_data import ReferenceDataMissing, reference_data_folder

PATCH_MPP = 0.97
DESCRIPTION = "metadet composed node slide: real CAMELYON16 tissue (CC0) quilted under real lesion outlines; the anatomy is not real"
DOUBLED = "; level 0 is interpolated from level 1"
SOURCES = {
    "tissue": "CAMELYON16 challenge (Radboudumc, UMC Utrecht) through PatchCamelyon, CC0 1.0; Ehteshami Bejnordi et al., JAMA 2017",
    "outlines": "CAMELYON16 lesion outlines, CC0 1.0, as published in baidu-research/NCRF (Apache-2.0)",
}
MASK_NORMAL, MASK_TUMOUR = 1, 2
"""Values of masks/NAME_mask.tif, as in CAMELYON16; 0 is glass."""
_REDRAWS = 8


@dataclass(frozen=True)
class Request:
    folder: Path
    slides: int
    normal: int
    lesions: tuple[str, ...]
    nodes: int
    width: int
    height: int
    fold: int
    outlines: str
    stain: str
    seed: int
    quality: int
    prefix: str


@dataclass(frozen=True)
class SetRequest:
    folder: Path
    split: str
    slides: int
    seed: int
    validation_percent: int = VALIDATION_PERCENT
    quality: int = 80
    masks: bool = False
    double: bool = True
    """Write a level of half the spacing of the patches on top, so that the slide looks like one scanned at 20x."""
    widen: bool = False
    canvas_px: tuple[int, int] = CANVAS_PX
    itc_only_share: float = ITC_ONLY_SHARE
    micro_share: float = MICRO_SHARE
    sheet_px: int = SHEET_PX


def compose_folder(request: Request, *, data: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Raises NoRoom, PoolTooSmall. The same request gives the same slides."""
    patches, hard = load_tissue(data)
    if request.fold >= 0:
        patches, hard = patches.where(patches.fold == request.fold), hard.where(hard.fold == request.fold)
    outlines = load_outlines(data / "camelyon16_lesion_polygons.npz", split=request.outlines)
    stains = ["brown", "purple"] if request.stain == "both" else [request.stain]
    pools = [build_pools(patches, hard, stain=stain) for stain in stains]
    request.folder.mkdir(parents=True, exist_ok=True)
    rows, written = [], []
    for number in range(request.slides):
        rng = np.random.default_rng([request.seed, number])
        has_lesions = number >= request.normal
        plan = SlidePlan(
            request.width, request.height, request.nodes, request.lesions if has_lesions else (), PATCH_MPP
        )
        pool = pools[number % len(pools)]
        slide = compose_slide(plan, tissue=QuiltedTissue(pool), outlines=outlines, rng=rng)
        name = f"{request.prefix}_{number + 1:03d}"
        written.append(_write(request, slide, name, stain=pool.stain))
        rows.append(_reference_row(slide, name, stain=pool.stain))
        say(f"{name}.tif: {_lesions_in_words(slide)}")
    _write_reference(request.folder, rows)
    return written


def slide_class(slide: ComposedSlide) -> str:
    """The class of the largest lesion, or negative."""
    classes = {lesion.size_class for lesion in slide.lesions}
    return next((c for c in ("macro", "micro", "itc") if c in classes), "negative")


def _lesions_in_words(slide: ComposedSlide) -> str:
    return ", ".join(f"{le.size_class} {le.longest_mm:.2f} mm" for le in slide.lesions) or "no lesion"


def _reference_row(slide: ComposedSlide, name: str, *, stain: str) -> dict[str, str]:
    kind = "tumor" if slide.lesions else "normal"
    return {"image": f"{name}.tif", "type": kind, "class": slide_class(slide), "center": stain}


def _write_reference(folder: Path, rows: Iterable[dict[str, str]]) -> None:
    with (folder / "reference.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "type", "class", "center"])
        writer.writeheader()
        writer.writerows(rows)


def _write(request: Request, slide: ComposedSlide, name: str, *, stain: str) -> Path:
    path = request.folder / f"{name}.tif"
    write_pyramid(path, slide.rgb, mpp=slide.mpp, description=DESCRIPTION, quality=request.quality)
    if slide.lesions:
        write_asap(request.folder / f"{name}.xml", [part for le in slide.lesions for part in le.polygon.geoms])
    note = {
        "composed": True,
        "sources": SOURCES,
        "seed": request.seed,
        "fold": request.fold,
        "outline_split": request.outlines,
        "stain": stain,
        "mpp": slide.mpp,
        "lesions": _lesion_notes(slide, factor=1),
    }
    (request.folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return path


def _lesion_notes(slide: ComposedSlide, *, factor: int) -> list[dict[str, Any]]:
    """`factor`: level-0 px per px of the composition."""
    return [
        {
            "size_class": lesion.size_class,
            "longest_diameter_mm": lesion.longest_mm,
            "bbox0": [round(v * factor, 1) for v in lesion.polygon.bounds],
            "outline_from": lesion.source_outline,
        }
        for lesion in slide.lesions
    ]


# -- sets ----------------------------------------------------------------------------------------------------------------


def compose_set(request: SetRequest, *, data: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Write the set and return what tags.json holds. The same request gives the same bytes. Raises NoRoom, PoolTooSmall."""
    split = load_split(data, request.split, validation_percent=request.validation_percent)
    outlines = load_outlines(data / "camelyon16_lesion_polygons.npz", split=OUTLINES_OF[request.split])
    planned = plan_set(
        prefix=request.split,
        slides=request.slides,
        seed=request.seed,
        mpp=PATCH_MPP,
        canvas_px=request.canvas_px,
        itc_only_share=request.itc_only_share,
        micro_share=request.micro_share,
    )
    stains = sorted({one.stain for one in planned})
    tissues = {stain: tissue_of(split, stain=stain, widen=request.widen) for stain in stains}
    sheets = {
        s: SheetTissue(t.patches, seed=(request.seed, *s.encode()), side=request.sheet_px) for s, t in tissues.items()
    }
    for name in ("images", "annotations", "tags", *(["masks"] if request.masks else [])):
        (request.folder / name).mkdir(parents=True, exist_ok=True)
    rows, notes = [], []
    for number, one in enumerate(planned):
        started = time.process_time()
        slide, artefacts = _composed(one, sheets[one.stain], outlines, seed=(request.seed, 1, number))
        notes.append(_write_of_set(request, slide, one, artefacts))
        rows.append(_reference_row(slide, one.name, stain=one.stain))
        say(f"{one.name}.tif: {_lesions_in_words(slide)} ({time.process_time() - started:.1f} CPU s)")
    _write_reference(request.folder, rows)
    document = _set_note(request, tissues, notes)
    (request.folder / "tags.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def _composed(
    planned: PlannedSlide, tissue: SheetTissue, outlines: Any, *, seed: tuple[int, ...]
) -> tuple[ComposedSlide, list[PlacedArtefact]]:
    """A large lesion may find no room in the nodes that were drawn: then other nodes are drawn."""
    for attempt in range(_REDRAWS):
        rng = np.random.default_rng([*seed, attempt])
        try:
            slide = compose_slide(planned.plan, tissue=tissue, outlines=outlines, rng=rng)
        except NoRoom:
            if attempt == _REDRAWS - 1:
                raise
            continue
        return slide, lay_artefacts(slide, planned, rng)
    raise AssertionError("unreachable")


def _write_of_set(
    request: SetRequest, slide: ComposedSlide, planned: PlannedSlide, artefacts: list[PlacedArtefact]
) -> dict[str, Any]:
    factor = 2 if request.double else 1
    mpp, name, folder = slide.mpp / factor, planned.name, request.folder
    rgb = doubled(slide.rgb) if request.double else slide.rgb
    description = DESCRIPTION + (DOUBLED if request.double else "")
    write_pyramid(folder / "images" / f"{name}.tif", rgb, mpp=mpp, description=description, quality=request.quality)
    if slide.lesions:
        parts = [part for le in slide.lesions for part in le.polygon.geoms]
        polygons = [affinity.scale(part, factor, factor, origin=(0, 0)) for part in parts]
        write_asap(folder / "annotations" / f"{name}.xml", polygons)
    if request.masks:
        values = np.where((slide.rgb != slide.rgb[0, 0]).any(axis=-1), MASK_NORMAL, 0).astype(np.uint8)
        values[slide.tumour] = MASK_TUMOUR
        write_mask(folder / "masks" / f"{name}_mask.tif", values.repeat(factor, axis=0).repeat(factor, axis=1), mpp=mpp)
    Image.fromarray(slide.tags.bits).save(folder / "tags" / f"{name}.png")
    lesions = _lesion_notes(slide, factor=factor)
    for note in lesions:
        left, top, right, bottom = (int(v / factor) for v in note["bbox0"])
        mask = slide.tumour[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        under = {t: slide.tags.share(t, mask, top=max(top, 0), left=max(left, 0)) for t in ("fold", "blur", "ink")}
        note["under"] = {tag: round(share, 3) for tag, share in under.items() if share}
    return {
        "image": f"{name}.tif",
        "stain": planned.stain,
        "class": slide_class(slide),
        "nodes": len(slide.nodes),
        "tissue_mm2": round(slide.tags.area_mm2("tissue"), 3),
        "lesions": lesions,
        "decoys": [
            {"tissue": d.tissue, "longest_diameter_mm": d.longest_mm, "bbox0": [v * factor for v in d.bbox]}
            for d in slide.decoys
        ],
        "artefacts": [{"kind": a.kind, "bbox0": [v * factor for v in a.bbox], "note": a.note} for a in artefacts],
        "area_mm2": {tag: round(slide.tags.area_mm2(tag), 4) for tag in TAG_BITS},
    }


def _set_note(request: SetRequest, tissues: dict[str, StainTissue], slides: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "composed": True,
        "sources": SOURCES,
        "split": request.split,
        "validation_percent": request.validation_percent,
        "seed": request.seed,
        "mix_of_slides_with_lesions": {"itc_only": request.itc_only_share, "micro": request.micro_share},
        "outline_split": OUTLINES_OF[request.split],
        "mpp": PATCH_MPP / 2 if request.double else PATCH_MPP,
        "patch_mpp": PATCH_MPP,
        "tag_bits": TAG_BITS,
        "tag_cell_um": MAP_MPP,
        "pools": {s: {kind: len(ids) for kind, ids in t.ids.items()} for s, t in tissues.items()},
        "patch_ids": {s: {kind: sorted(ids) for kind, ids in t.ids.items()} for s, t in tissues.items()},
        "slides": slides,
    }


# -- command line --------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.detector.compose",
        description="Compose annotated slides of real tissue: some to show, or with --split a set laid out as CAMELYON16.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--slides", type=int, help="how many (default: 1, of a set 40)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quality", type=int, default=80, help="JPEG")
    shown = parser.add_argument_group("slides to show")
    shown.add_argument("--normal", type=int, default=0, help="how many of them (the first ones) carry no lesion")
    shown.add_argument("--lesions", default="macro,micro,itc", help="classes of the lesions of each other slide")
    shown.add_argument("--nodes", type=int, default=3)
    shown.add_argument("--width", type=int, default=7168, help="px of 0.97 um")
    shown.add_argument("--height", type=int, default=5120)
    shown.add_argument(
        "--fold", type=int, default=4, help="use only patches of this fold (-1: all); 4 is never trained on"
    )
    shown.add_argument("--outlines", choices=("train", "valid"), default="valid")
    shown.add_argument("--stain", choices=("brown", "purple", "both"), default="both")
    shown.add_argument("--prefix", default="composed")
    sets = parser.add_argument_group("a set")
    sets.add_argument("--split", choices=SPLITS, help="compose a set of this tissue: half of the slides have lesions")
    sets.add_argument(
        "--validation-percent", type=int, default=VALIDATION_PERCENT, help="as in the training configuration"
    )
    sets.add_argument(
        "--masks", action="store_true", help="write masks/NAME_mask.tif too (0 glass, 1 normal, 2 tumour)"
    )
    sets.add_argument("--widen", action="store_true", help="take paler and less sharp patches where a pool is thin")
    sets.add_argument("--single", action="store_true", help="level 0 at 0.97 um/px, without an interpolated one on top")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    lesions = tuple(word for word in options.lesions.split(",") if word)
    if wrong := _wrong(options, lesions):
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    try:
        if options.split:
            compose_set(_set_request(options), data=reference_data_folder())
        else:
            compose_folder(_request(options, lesions), data=reference_data_folder())
    except (NoRoom, PoolTooSmall, PatchFileError, ReferenceDataMissing, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _wrong(options: argparse.Namespace, lesions: tuple[str, ...]) -> str:
    unknown = set(lesions) - set(LONGEST_UM)
    if unknown:
        return f"unknown lesion class {sorted(unknown)[0]!r}"
    slides = 1 if options.slides is None else options.slides
    if slides < 1 or options.nodes < 1 or min(options.width, options.height) < 256:
        return "slides, nodes and canvas must be positive (256 px at least)"
    if not 0 < options.validation_percent < 100:
        return "the validation percentage lies between 1 and 99"
    return ""


def _set_request(options: argparse.Namespace) -> SetRequest:
    return SetRequest(
        folder=options.folder,
        split=options.split,
        slides=40 if options.slides is None else options.slides,
        seed=options.seed,
        validation_percent=options.validation_percent,
        quality=options.quality,
        masks=options.masks,
        double=not options.single,
        widen=options.widen,
    )


def _request(options: argparse.Namespace, lesions: tuple[str, ...]) -> Request:
    return Request(
        folder=options.folder,
        slides=1 if options.slides is None else options.slides,
        normal=options.normal,
        lesions=lesions,
        nodes=options.nodes,
        width=options.width,
        height=options.height,
        fold=options.fold,
        outlines=options.outlines,
        stain=options.stain,
        seed=options.seed,
        quality=options.quality,
        prefix=options.prefix,
    )


if __name__ == "__main__":
    sys.exit(main())
