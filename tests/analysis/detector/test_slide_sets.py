"""Sets of composed slides, made of made-up patches and outlines, as a clean clone can."""

import csv
import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
import pyvips

from analysis.detector.annotations import paint, read_asap
from analysis.detector.compose import MASK_TUMOUR, SetRequest, compose_set
from analysis.detector.composing.splits import TEST_FOLD, VALIDATION_PERCENT, load_split, middle_of
from analysis.detector.patch_file import compressed_alike, folds_of, load_patches, percent_of
from analysis.detector.slide_evaluation import is_composed, read_reference
from analysis.detector.slide_judging import read_tags
from tests.analysis.detector.conftest import scanned
from tests.analysis.detector.test_patch_file import write_patches

SMALL = {"slides": 4, "seed": 5, "masks": True, "canvas_px": (1700, 1300), "sheet_px": 160}
MIX = {"itc_only_share": 0.5, "micro_share": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reference data: 480 patches, of which fat is white for the most part, and two outlines for each split."""
    folder = tmp_path_factory.mktemp("data")
    write_patches(folder / "pcam_patches.npz", n=480, side=32, label=np.array([(0, 1, 0)[i % 3] for i in range(480)]))
    _whiten(folder / "pcam_patches.npz", every=7)
    confirmed = np.arange(360) % 4 > 0
    ids = np.array([f"hard{i}" for i in range(360)])
    hard = {"label": np.zeros(360, np.int8), "id": ids, "in_label_table": confirmed}
    write_patches(folder / "pcam_hard_negatives.npz", n=360, side=32, **hard)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([4000 + 2000 * np.cos(angle), 4000 + 1400 * np.sin(angle)], axis=1)
    np.savez(
        folder / "camelyon16_lesion_polygons.npz",
        vertices=np.concatenate([ring, ring]),
        offsets=np.array([0, 40, 80]),
        slide_index=np.array([0, 1]),
        sign=np.array([1, 1]),
        slides=np.array(["tumor_001", "tumor_101"]),
        split=np.array(["train", "valid"]),
    )
    return folder


def _whiten(path: Path, *, every: int) -> None:
    """Every so many patches become fat: bare glass with a stained strip."""
    import io

    from PIL import Image

    stored = dict(np.load(path))
    blobs = []
    for i, (start, end) in enumerate(zip(stored["offsets"][:-1], stored["offsets"][1:], strict=True)):
        blob = stored["data"][start:end].tobytes()
        if i % every == 0 and stored["label"][i] == 0:
            rgb = np.asarray(Image.open(io.BytesIO(blob))).copy()
            rgb[8:] = 240
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "PNG")
            blob = buffer.getvalue()
        blobs.append(blob)
    stored["data"] = np.frombuffer(b"".join(blobs), np.uint8)
    stored["offsets"] = np.cumsum([0, *map(len, blobs)])
    np.savez(path, **stored)


@pytest.fixture(scope="module")
def test_set(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test-set")
    compose_set(SetRequest(folder, "test", **SMALL, **MIX), data=data, say=lambda text: None)
    return folder


def test_outlines_mask_and_table_of_a_set_agree(test_set: Path) -> None:
    references = read_reference(test_set)
    notes = {one["image"]: one for one in json.loads((test_set / "tags.json").read_text())["slides"]}
    assert sorted(str(r.size_class) for r in references) == ["itc", "micro", "negative", "negative"]
    assert is_composed(test_set)
    for reference in references:
        mask = pyvips.Image.new_from_file(str(test_set / "masks" / f"{reference.path.stem}_mask.tif")).numpy()
        image = pyvips.Image.new_from_file(str(reference.path))
        assert mask.shape == (image.height, image.width)
        tumour = mask == MASK_TUMOUR
        assert tumour.any() == reference.tumour == (reference.annotation is not None)
        note = notes[reference.path.name]
        assert {le["size_class"] for le in note["lesions"]} <= {"itc", "micro"}
        if reference.annotation is not None:
            rows, cols = mask.shape
            painted = paint(read_asap(reference.annotation), rows=rows, cols=cols, cell_x0=1, cell_y0=1)
            assert (painted & tumour).sum() > 0.95 * (painted | tumour).sum()
        tags = read_tags(test_set, reference.path.stem)
        assert tags is not None
        assert (tags.bits & tags.names["tissue"]).any()


def test_the_same_request_gives_the_same_bytes(test_set: Path, data: Path, tmp_path: Path) -> None:
    compose_set(SetRequest(tmp_path, "test", **SMALL, **MIX), data=data, say=lambda text: None)
    names = sorted(str(p.relative_to(test_set)) for p in test_set.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    same, different, unreadable = filecmp.cmpfiles(test_set, tmp_path, names, shallow=False)
    assert (different, unreadable) == ([], [])
    assert len(same) == len(names)


def test_the_patches_of_two_splits_have_none_in_common(test_set: Path, data: Path, tmp_path: Path) -> None:
    used = {"test": _ids(test_set)}
    for split, percent in (("validation", 40), ("train", 40)):
        folder = tmp_path / split
        request = SetRequest(folder, split, **{**SMALL, "slides": 1}, validation_percent=percent)
        compose_set(request, data=data, say=lambda text: None)
        used[split] = _ids(folder)
    assert all(used.values())
    assert not used["test"] & (used["validation"] | used["train"])
    assert not used["validation"] & used["train"]
    assert all(folds_of(np.array([i]))[0] == TEST_FOLD for i in used["test"])
    assert all(percent_of(i, salt="validation") < 40 for i in used["validation"])
    assert VALIDATION_PERCENT < 40


def test_an_unconfirmed_hard_negative_is_not_taken_for_normal_tissue(test_set: Path) -> None:
    hard = {i for i in _ids(test_set) if i.startswith("hard")}
    assert hard
    assert all(int(i.removeprefix("hard")) % 4 for i in hard)


def _ids(folder: Path) -> set[str]:
    by_stain = json.loads((folder / "tags.json").read_text())["patch_ids"]
    return {i for kinds in by_stain.values() for ids in kinds.values() for i in ids}


def test_tissue_of_a_slide_is_compressed_alike_whatever_it_is(data: Path) -> None:
    patches, hard = (
        compressed_alike(load_patches(data / f"pcam_{name}.npz")) for name in ("patches", "hard_negatives")
    )
    for split in ("test", "train"):
        found = load_split(data, split)
        for whole, part in ((patches, found.patches), (middle_of(hard), found.confirmed_negatives)):
            pixels = dict(zip(whole.ids.tolist(), whole.rgb, strict=True))
            assert len(part)
            assert all(np.array_equal(rgb, pixels[name]) for name, rgb in zip(part.ids.tolist(), part.rgb, strict=True))


def test_a_slide_has_tissue_of_one_scanner_by_its_colour(tmp_path: Path) -> None:
    """What the column calls brown may be pale tissue of the other scanner."""
    of = ["brown", "purple"] * 60
    wrong = np.where(np.arange(120) % 12 == 1, "brown", np.array(of))
    for name in ("patches", "hard_negatives"):
        ids = np.array([f"{name}{i}" for i in range(120)])
        extra = {"label": np.zeros(120, np.int8), "in_label_table": np.ones(120, bool)} if "hard" in name else {}
        write_patches(
            tmp_path / f"pcam_{name}.npz",
            n=120,
            recolour=lambda rgb, i: scanned(rgb, of[i]),
            id=ids,
            stain=wrong,
            **extra,
        )
    found = load_split(tmp_path, "train")
    for part in (found.patches, found.confirmed_negatives):
        assert len(part) > 40
        assert part.stain.tolist() == [
            of[int(str(i).removeprefix("patches").removeprefix("hard_negatives"))] for i in part.ids
        ]


def test_the_table_has_the_columns_of_camelyon16(test_set: Path) -> None:
    with (test_set / "reference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "type", "class", "center"]
    assert {row["type"] for row in rows} == {"tumor", "normal"}
