"""Which slides lie in a folder, what is known of each, and which of them are used for what.

The layout is chosen by what lies there: CAMELYON16 (normal_001, tumor_001, test_001 or reference.csv), CAMELYON17
(patient_000_node_0, stage labels), or a plain folder. In each, annotations may lie beside the slide or anywhere below the
folder: NAME.xml (ASAP), NAME.geojson (QuPath), NAME_mask.tif or masks/NAME.tif.
"""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from analysis.detector.annotation_masks import mask_values, tumour_value
from analysis.detector.annotations import AnnotationError, read_outlines
from analysis.detector.configuration import DataConfig
from analysis.detector.patch_file import FOLDS, percent_of
from analysis.detector.training.known_problems import EXCLUDED, LITTLE_TISSUE, PARTLY_ANNOTATED

SLIDE_SUFFIXES = frozenset({".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".dcm"})
OUTLINE_SUFFIXES = (".xml", ".geojson")
MASK_SUFFIXES = frozenset({".tif", ".tiff"})
MASK_FOLDERS = frozenset({"mask", "masks", "background_tissue"})
NORMAL_FOLDERS = frozenset({"normal", "normals", "negative", "train_normal", "training_normal"})
_CAMELYON16 = re.compile(r"(normal|tumor|test)_\d{3}$")
_CAMELYON17 = re.compile(r"(patient_\d{3})_node_\d$")
_MASK_NAME = re.compile(r"(.+?)[_-](?:mask|truth|annotation)s?$", re.IGNORECASE)

LAYOUTS = {"camelyon16": "CAMELYON16", "camelyon17": "CAMELYON17", "plain": "a plain folder"}


class SlideFolderError(ValueError):
    """The folder of slides cannot be used; the message says what is missing."""


@dataclass(frozen=True)
class AnnotatedSlide:
    name: str
    path: Path
    tumour: bool
    annotation: Path | None
    """Outlines or mask; None for a slide known to be normal."""
    mask_tumour_value: int = 0
    """What means tumour in the mask; 0 for outlines."""
    partly: bool = False
    """Outside the outlines nothing is known."""
    source: str = ""
    """Slides of one patient, or one slide: never divided between training and validation."""
    split: str = "train"
    """train, validation or test."""


@dataclass
class SlideInventory:
    """What was found, before anything is read of the slides themselves."""

    layouts: dict[str, str] = field(default_factory=dict)
    slides: list[AnnotatedSlide] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def of(self, split: str) -> list[AnnotatedSlide]:
        return [slide for slide in self.slides if slide.split == split]

    def report(self) -> str:
        """The finds as lines for people."""
        found = len(self.slides) + len(self.unannotated) + len(self.excluded)
        tumour = [s for s in self.slides if s.tumour]
        lines = [f"{folder}: laid out as {LAYOUTS[layout]}" for folder, layout in self.layouts.items()]
        lines.append(
            f"{found} slides: {len(tumour)} with lesions ({sum(s.partly for s in tumour)} of them partly annotated), "
            f"{len(self.slides) - len(tumour)} normal, {len(self.unannotated)} without annotation (not used), "
            f"{len(self.excluded)} excluded"
        )
        for split in ("train", "validation", "test"):
            part = self.of(split)
            lines.append(
                f"  {split}: {sum(s.tumour for s in part)} with lesions, {sum(not s.tumour for s in part)} normal"
            )
        lines += [f"  excluded {name}: {reason}" for name, reason in sorted(self.excluded.items())]
        if self.unannotated:
            shown = ", ".join(sorted(self.unannotated)[:12]) + (" ..." if len(self.unannotated) > 12 else "")
            lines.append(f"  without annotation: {shown}")
        return "\n".join(lines + [f"  {remark}" for remark in self.remarks])


@dataclass(frozen=True)
class _Folder:
    """The files below one configured folder, by what they may be."""

    root: Path
    slides: dict[str, Path]
    outlines: dict[str, Path]
    masks: dict[str, Path]
    labels: dict[str, str]
    """Name -> normal or tumour, from reference.csv or stage labels."""
    layout: str


def find_slides(data: DataConfig) -> SlideInventory:
    """All slides below the folders of `data.slides`. Raises SlideFolderError for a folder that is not there or holds none."""
    inventory = SlideInventory()
    for entry in data.slides:
        folder = _look(Path(entry))
        inventory.layouts[entry] = folder.layout
        _take(folder, data, inventory)
    names = Counter(slide.name for slide in inventory.slides)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise SlideFolderError(
            f"two slides are named {twice[0]}: names tell slides apart in splits and records; rename one"
        )
    if not any(slide.tumour for slide in inventory.slides):
        raise SlideFolderError(
            f"no annotated tumour was found among the slides of {', '.join(data.slides)}\n{inventory.report()}"
        )
    return inventory


def _look(root: Path) -> _Folder:
    if not root.is_dir():
        raise SlideFolderError(f"there is no folder of slides at {root}")
    slides: dict[str, Path] = {}
    outlines: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    labels: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or not path.is_file():
            continue
        if suffix in OUTLINE_SUFFIXES:
            outlines.setdefault(path.stem, path)
        elif suffix == ".csv":
            labels |= _labels_of(path)
        elif suffix in MASK_SUFFIXES and (masked := _masked_slide(path, root)):
            masks.setdefault(masked, path)
        elif suffix in SLIDE_SUFFIXES:
            if path.stem in slides:
                raise SlideFolderError(
                    f"{path.relative_to(root)} and {slides[path.stem].relative_to(root)} are named alike: "
                    "names tell slides apart in splits and records; rename one"
                )
            slides[path.stem] = path
    if not slides:
        raise SlideFolderError(f"no slide lies in {root} ({', '.join(sorted(SLIDE_SUFFIXES))})")
    return _Folder(root, slides, outlines, masks, labels, _layout(slides, labels))


def _layout(slides: Iterable[str], labels: dict[str, str]) -> str:
    if any(_CAMELYON17.match(name) for name in slides):
        return "camelyon17"
    if labels or any(_CAMELYON16.match(name) for name in slides):
        return "camelyon16"
    return "plain"


def _masked_slide(path: Path, root: Path) -> str | None:
    """Name of the slide of which this TIFF is the mask; None when it is a slide itself."""
    named = _MASK_NAME.match(path.stem)
    if named:
        return named[1]
    folders = {part.lower() for part in path.relative_to(root).parts[:-1]}
    return path.stem if folders & MASK_FOLDERS else None


def _labels_of(path: Path) -> dict[str, str]:
    """reference.csv (image,type,...) or CAMELYON17's stage labels (patient,stage); nothing from other tables."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    head = [column.strip().lower() for column in rows[0]]
    if "image" in head and "type" in head:
        image, kind = head.index("image"), head.index("type")
    elif head[:2] == ["patient", "stage"]:
        image, kind = 0, 1
    elif re.match(r"(normal|tumor|test)_\d{3}", rows[0][0]) and len(rows[0]) > 1:  # CAMELYON16's own has no header
        rows, image, kind = [head, *rows], 0, 1
    else:
        return {}
    labels = {}
    for row in rows[1:]:
        if len(row) > max(image, kind) and not row[image].strip().lower().endswith(".zip"):
            word = row[kind].strip().lower()
            labels[Path(row[image].strip()).stem] = "normal" if word in ("normal", "negative") else "tumour"
    return labels


def _take(folder: _Folder, data: DataConfig, inventory: SlideInventory) -> None:
    usable: list[tuple[str, Path, Path | None]] = []
    values: dict[Path, set[int]] = {}
    for name, path in folder.slides.items():
        composed = _is_composed(path)
        if reason := _why_not(name, folder, data, composed=composed):
            inventory.excluded[name] = reason
            continue
        annotation = folder.outlines.get(name) or folder.masks.get(name)
        if annotation is None and not _is_known_normal(name, path, folder):
            if folder.labels.get(name) == "tumour":
                inventory.excluded[name] = "it holds tumour by its label, but there are no outlines of it"
            else:
                inventory.unannotated.append(name)
            continue
        if annotation is not None and annotation.suffix.lower() in MASK_SUFFIXES:
            try:
                values[annotation] = mask_values(annotation)
            except AnnotationError as problem:
                inventory.excluded[name] = str(problem)
                continue
        usable.append((name, path, annotation))
    means_tumour = data.mask_tumour_value or tumour_value(values.values())
    if values:
        inventory.remarks.append(f"masks: the value {means_tumour} is taken for tumour")
    for name, path, annotation in usable:
        try:
            tumour = _holds_tumour(annotation, values, means_tumour)
        except AnnotationError as problem:
            inventory.excluded[name] = str(problem)
            continue
        if tumour and folder.labels.get(name) == "normal":
            inventory.excluded[name] = (
                f"it is normal by its label, but {annotation.name if annotation else ''} outlines tumour"
            )
            continue
        listed = name in PARTLY_ANNOTATED and folder.layout == "camelyon16" and not _is_composed(path)
        patient = _CAMELYON17.match(name)
        inventory.slides.append(
            AnnotatedSlide(
                name=name,
                path=path,
                tumour=tumour,
                annotation=annotation if tumour else None,
                mask_tumour_value=means_tumour if tumour and annotation in values else 0,
                partly=tumour and (listed or name in data.partly_annotated),
                source=patient[1] if patient else name,
            )
        )
        if name in LITTLE_TISSUE and folder.layout == "camelyon16":
            inventory.remarks.append(f"{name} holds very little tissue")


def _why_not(name: str, folder: _Folder, data: DataConfig, *, composed: bool) -> str | None:
    if name in data.exclude:
        return "named in data.exclude"
    if folder.layout == "camelyon16" and not composed and _CAMELYON16.match(name):
        if name in EXCLUDED:
            return EXCLUDED[name]
        if name.startswith("test_"):
            return "it belongs to the test set of the challenge, which nothing is learnt from"
    return None


def _is_known_normal(name: str, path: Path, folder: _Folder) -> bool:
    if name in folder.labels:
        return folder.labels[name] == "normal"
    if folder.layout == "camelyon17":
        return False  # 900 slides without outlines hold tumour too
    in_folder = {part.lower() for part in path.relative_to(folder.root).parts[:-1]} & NORMAL_FOLDERS
    return bool(in_folder) or name.lower().startswith("normal")


def _holds_tumour(annotation: Path | None, values: dict[Path, set[int]], means_tumour: int) -> bool:
    if annotation is None:
        return False
    if annotation in values:
        return means_tumour in values[annotation]
    return any(outline.tumour for outline in read_outlines(annotation))


def _is_composed(path: Path) -> bool:
    """Composed slides say so in NAME.json; the lists of known problems are not about them, whatever they are named."""
    note = path.with_suffix(".json")
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and bool(content.get("composed"))


# -- splits ------------------------------------------------------------------------------------------------------------


def divide(inventory: SlideInventory, data: DataConfig, *, kept: Path) -> None:
    """Give each slide its split, by source, and keep them in `kept` (slide,split): later runs in this folder use the same.

    A split file of the configuration (`data.slide_splits`: CSV with the columns slide and split) goes before; without one
    the fold is a hash of the source. Raises SlideFolderError for an unknown split or a source divided by the file.
    """
    given = _read_splits(Path(data.slide_splits)) if data.slide_splits else {}
    before = _read_splits(kept) if kept.exists() else {}
    split = {s.name: given.get(s.name) or before.get(s.name) or _split_of(s.source, data) for s in inventory.slides}
    if not given and not before:
        _lend_validation(inventory, split)
    slides = []
    for slide in inventory.slides:
        slides.append(AnnotatedSlide(**{**vars(slide), "split": split[slide.name]}))
    by_source: dict[str, set[str]] = {}
    for slide in slides:
        by_source.setdefault(slide.source, set()).add(slide.split)
    torn = sorted(source for source, splits in by_source.items() if len(splits) > 1)
    if torn:
        raise SlideFolderError(f"the slides of {torn[0]} are divided between {', '.join(sorted(by_source[torn[0]]))}")
    inventory.slides = slides
    if not any(s.tumour for s in inventory.of("train")):
        raise SlideFolderError(
            "no slide with lesions is left for training; lower data.test_fold to -1 or give a split file"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "split", "source", "tumour", "partly_annotated"])
        writer.writerows([s.name, s.split, s.source, int(s.tumour), int(s.partly)] for s in slides)


def _split_of(source: str, data: DataConfig) -> str:
    if percent_of(source, salt="fold") * FOLDS // 100 == data.test_fold:
        return "test"
    return "validation" if percent_of(source, salt="validation") < data.validation_percent else "train"


def _lend_validation(inventory: SlideInventory, split: dict[str, str]) -> None:
    """Few slides: chance may leave none of a kind for validation; then the first by hash of the kind moves there."""
    for tumour in (True, False):
        kind = [s for s in inventory.slides if s.tumour == tumour]
        train = {s.source for s in kind if split[s.name] == "train"}
        if len(train) < 2 or any(split[s.name] == "validation" for s in kind):
            continue
        moved = min(train, key=lambda source: hashlib.sha256(source.encode()).hexdigest())
        for slide in inventory.slides:
            if slide.source == moved:
                split[slide.name] = "validation"
        what = "with lesions" if tumour else "that are normal"
        inventory.remarks.append(f"{moved} moved to validation, which had no slides {what}")


def _read_splits(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as problem:
        raise SlideFolderError(f"the split file {path} cannot be read: {problem.strerror}") from problem
    if rows and not {"slide", "split"} <= set(rows[0]):
        raise SlideFolderError(f"the split file {path} needs the columns slide and split")
    wrong = next((row["split"] for row in rows if row["split"] not in ("train", "validation", "test")), None)
    if wrong is not None:
        raise SlideFolderError(f"the split file {path} names {wrong!r}; known are train, validation and test")
    return {Path(row["slide"]).stem: row["split"] for row in rows}
