"""Which patches and regions a training run learns from."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.tissue_pool import TissuePools
from analysis.detector.configuration import ConfigurationError, DetectorConfig, config_from_dict
from analysis.detector.patch_file import PatchFileError, PatchSet, compressed_alike, load_patches
from analysis.detector.scanner_colour import scanners_by_colour
from analysis.detector.training.fixed_slides import FixedSlide, SlideRegions, cached_sheets, key_of, slide_order
from analysis.detector.training.material import Material, load_material, share_of
from analysis.detector.training.regions import Region, RegionMaker, Sheets, resampled
from tests.analysis.detector.conftest import scanned, tissue_like
from tests.analysis.detector.test_patch_file import write_patches


def patch_set(n: int) -> PatchSet:
    rng = np.random.default_rng(0)
    return PatchSet(
        rgb=np.zeros((n, 4, 4, 3), np.uint8),
        ids=np.array([f"{i:05d}" for i in range(n)]),
        label=(rng.random(n) < 0.3).astype(np.int8),
        stain=np.where(rng.random(n) < 0.6, "brown", "purple"),
        fold=np.zeros(n, np.int8),
        white=np.zeros(n, np.float32),
    )


def test_a_share_is_stratified_nested_and_differs_between_seeds() -> None:
    patches = patch_set(2000)
    tenth = share_of(patches, fraction=0.1, seed=1)
    assert tenth.sum() == pytest.approx(200, abs=2)
    for label in (0, 1):
        for stain in ("brown", "purple"):
            stratum = (patches.label == label) & (patches.stain == stain)
            assert tenth[stratum].sum() == round(0.1 * stratum.sum())
    assert not (tenth & ~share_of(patches, fraction=0.3, seed=1)).any()
    assert (tenth != share_of(patches, fraction=0.1, seed=2)).any()
    assert share_of(patches, fraction=1.0, seed=1).all()


def test_the_smallest_share_keeps_every_kind() -> None:
    patches = patch_set(60)
    few = patches.where(share_of(patches, fraction=0.001, seed=0))
    assert {(int(a), str(b)) for a, b in zip(few.label, few.stain, strict=True)} == {
        (0, "brown"),
        (0, "purple"),
        (1, "brown"),
        (1, "purple"),
    }
    assert len(few) == 4


def material_config(folder: Path, **data: object) -> DetectorConfig:
    base = {"folder": str(folder), "patches": ["p.npz"], "hard_negatives": [], "validation_percent": 10}
    return config_from_dict({"data": {**base, **data}, "train": {"regions_every": 0}})


def test_one_stain_alone_is_trained_on_but_both_are_tested(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=300)
    found = load_material(material_config(tmp_path, train_stain="purple"), rng=np.random.default_rng(0))
    for part in (found.positive, found.negative, found.validation):
        assert set(part.stain) == {"purple"}
    assert set(found.test.stain) == {"brown", "purple"}
    with pytest.raises(PatchFileError, match="no patch is of stain 'green'"):
        load_material(material_config(tmp_path, train_stain="green"), rng=np.random.default_rng(0))


def test_of_one_scanner_every_fold_may_be_learnt_from_but_of_no_other(tmp_path: Path) -> None:
    patches = load_patches(write_patches(tmp_path / "p.npz", n=300))
    hard = load_patches(
        write_patches(
            tmp_path / "h.npz", n=60, label=np.zeros(60, np.int8), id=np.array([f"hard{i}" for i in range(60)])
        )
    )
    chosen = {"hard_negatives": ["h.npz"], "train_stain": "purple", "validation_percent": 0, "scanner_by": "column"}
    found = load_material(material_config(tmp_path, **chosen, every_fold=True), rng=np.random.default_rng(0))
    purple = patches.stain == "purple"
    assert set(found.positive.ids) | set(found.negative.ids) == set(patches.ids[purple & (patches.label >= 0)])
    assert set(found.hard_negative.ids) == set(hard.ids[hard.stain == "purple"])
    assert found.unlabelled is not None
    assert set(found.unlabelled.ids) == set(patches.ids[purple & (patches.label < 0)])
    assert set(found.test.ids) == set(patches.ids[~purple & (patches.fold == 4) & (patches.label >= 0)])
    assert set(found.test_hard_negative.ids) == set(hard.ids[(hard.stain == "brown") & (hard.fold == 4)])
    by_fold = load_material(material_config(tmp_path, **chosen), rng=np.random.default_rng(0))
    assert 4 in found.positive.fold
    assert 4 not in by_fold.positive.fold
    with pytest.raises(ConfigurationError, match="every_fold leaves nothing for a test"):
        material_config(tmp_path, every_fold=True)


def test_the_test_fold_and_validation_stay_whole_when_training_shrinks(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=300)
    whole = load_material(material_config(tmp_path), rng=np.random.default_rng(0))
    few = load_material(material_config(tmp_path, fraction=0.1), rng=np.random.default_rng(0))
    assert len(few.positive) + len(few.negative) < 0.2 * (len(whole.positive) + len(whole.negative))
    assert few.test.ids.tolist() == whole.test.ids.tolist()
    assert few.validation.ids.tolist() == whole.validation.ids.tolist()
    assert not set(few.positive.ids) & set(few.test.ids)


def test_beside_hard_negatives_everything_is_compressed_alike_but_the_test_fold(tmp_path: Path) -> None:
    """They come as JPEG, the other patches do not: a network would learn that what is compressed is no tumour."""
    patches = load_patches(write_patches(tmp_path / "p.npz", n=300))
    write_patches(
        tmp_path / "hard.npz", n=60, label=np.zeros(60, np.int8), id=np.array([f"hard{i}" for i in range(60)])
    )
    pixels = dict(zip(patches.ids.tolist(), patches.rgb, strict=True))
    alike = dict(zip(patches.ids.tolist(), compressed_alike(patches).rgb, strict=True))
    found = load_material(material_config(tmp_path, hard_negatives=["hard.npz"]), rng=np.random.default_rng(0))
    assert found.unlabelled is not None
    for part in (found.positive, found.negative, found.unlabelled, found.validation):
        assert len(part)
        assert all(np.array_equal(rgb, alike[name]) for name, rgb in zip(part.ids.tolist(), part.rgb, strict=True))
    assert all(
        np.array_equal(rgb, pixels[name]) for name, rgb in zip(found.test.ids.tolist(), found.test.rgb, strict=True)
    )
    alone = load_material(material_config(tmp_path), rng=np.random.default_rng(0))
    assert all(
        np.array_equal(rgb, pixels[name])
        for name, rgb in zip(alone.positive.ids.tolist(), alone.positive.rgb, strict=True)
    )


def test_slides_come_in_turns_with_and_without_lesions() -> None:
    order = slide_order(seed=3)
    assert sorted(order) == list(range(40))
    assert [number % 2 for number in order[:6]] == [0, 1, 0, 1, 0, 1]
    assert order != slide_order(seed=4)


def test_regions_of_fixed_slides_show_those_slides_alone() -> None:
    rng = np.random.default_rng(0)
    slides = []
    for grey in (60, 180):
        instance = np.zeros((300, 400), np.int16)
        instance[100:150, 200:260] = 1 if grey == 60 else 0
        rgb = np.full((300, 400, 3), grey, np.uint8)
        rgb[instance > 0] = 255
        slides.append(FixedSlide(rgb, instance, np.ones((300, 400), bool)))
    maker = SlideRegions(slides, side=128, output_side=128)
    regions = [maker.make(rng) for _ in range(60)]
    assert {int(v) for r in regions for v in np.unique(r.rgb)} == {60, 180, 255}
    for region in regions:
        assert region.rgb.shape == (128, 128, 3)
        assert ((region.instance > 0) == (region.rgb[..., 0] == 255)).all()
        assert not (region.ignore & (region.instance > 0)).any()
    assert 20 < sum(r.instance.any() for r in regions) < 55


def test_a_region_read_coarser_shows_the_same_field() -> None:
    rgb = tissue_like(256, 256)
    instance = np.zeros((256, 256), np.int16)
    instance[64:128, 32:96] = 3
    small = resampled(Region(rgb, instance, instance == 0), side=64)
    assert small.rgb.shape == (64, 64, 3)
    ys, xs = np.nonzero(small.instance == 3)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (16, 31, 8, 23)
    assert ((small.instance == 0) == small.ignore).all()
    block = rgb[:4, :4].mean()
    assert abs(float(small.rgb[0, 0].mean()) - block) < 40


def test_sheets_are_made_once_for_the_same_tissue(tmp_path: Path) -> None:
    patches = np.stack([tissue_like(96, 96, seed=i) for i in range(6)])
    pools = TissuePools("brown", patches, patches, patches, patches)
    key = key_of(patch_set(3), patch_set(2))
    first = cached_sheets(pools, side=128, rng=np.random.default_rng(0), cache=tmp_path, tissue=key)
    kept = list(tmp_path.iterdir())
    again = cached_sheets(pools, side=128, rng=np.random.default_rng(9), cache=tmp_path, tissue=key)
    assert len(kept) == 1
    assert (first.tumour == again.tumour).all()
    assert key_of(patch_set(3), patch_set(2)) != key_of(patch_set(4), patch_set(2))
    assert key_of(patch_set(3).where(np.array([2, 0, 1])), patch_set(2)) == key
    brighter = dataclasses.replace(patch_set(3), rgb=patch_set(3).rgb + 1)
    assert key_of(brighter, patch_set(2)) != key
    told_otherwise = dataclasses.replace(patch_set(3), stain=np.full(3, "green"))
    assert key_of(told_otherwise, patch_set(2)) != key


def test_a_region_maker_resamples_to_the_wanted_side(tmp_path: Path) -> None:
    sheet = tissue_like(512, 512)
    outlines = load_outlines(_outline_file(tmp_path), split="train")
    maker = RegionMaker([Sheets(sheet, sheet, sheet, sheet)], outlines, side=256, mpp=0.97, output_side=128)
    region = maker.make(np.random.default_rng(1))
    assert region.rgb.shape == (128, 128, 3)
    assert region.instance.shape == region.ignore.shape == (128, 128)


def _outline_file(folder: Path) -> Path:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([2000 * np.cos(angle), 1500 * np.sin(angle)], axis=1).astype(np.int32)
    path = folder / "outlines.npz"
    np.savez(
        path,
        vertices=ring,
        offsets=np.array([0, len(ring)]),
        slide_index=np.array([0]),
        sign=np.array([1], np.int8),
        slides=np.array(["tumor_001"]),
        split=np.array(["train"]),
    )
    return path


def test_pale_tissue_goes_with_the_scanner_whose_colour_it_has(tmp_path: Path) -> None:
    """The darkest pixels, by which the column was found, say nothing of it."""
    write_patches(tmp_path / "p.npz", n=300, recolour=lambda rgb, i: scanned(rgb, "brown" if i % 2 == 0 else "purple"))
    true = load_patches(tmp_path / "p.npz")
    named = true.stain.copy()
    called_wrongly = np.flatnonzero(true.stain == "purple")[::10]
    named[called_wrongly] = "brown"
    found = scanners_by_colour(dataclasses.replace(true, stain=named))
    assert found.tolist() == true.stain.tolist()

    write_patches(
        tmp_path / "p.npz",
        n=300,
        recolour=lambda rgb, i: scanned(rgb, "brown" if i % 2 == 0 else "purple"),
        stain=named,
    )
    by_colour = load_material(material_config(tmp_path, train_stain="brown"), rng=np.random.default_rng(0))
    by_column = load_material(
        material_config(tmp_path, train_stain="brown", scanner_by="column"), rng=np.random.default_rng(0)
    )
    wrong = set(true.ids[called_wrongly])
    assert not wrong & ids_of(by_colour)
    assert wrong & ids_of(by_column)

    # both scanners trained on: regions are composed of what is called one stain, and figures given for it
    both = load_material(material_config(tmp_path), rng=np.random.default_rng(0))
    for part in (both.positive, both.negative, both.unlabelled, both.validation, both.test):
        assert part is not None
        assert part.stain.tolist() == [true.stain[true.ids.tolist().index(i)] for i in part.ids]


def test_a_patch_without_tissue_or_a_set_of_one_colour_keeps_its_stains(tmp_path: Path) -> None:
    same = load_patches(write_patches(tmp_path / "p.npz", n=60))
    assert scanners_by_colour(same).tolist() == same.stain.tolist()
    write_patches(tmp_path / "p.npz", n=60, recolour=lambda rgb, i: scanned(rgb, "brown" if i % 2 == 0 else "purple"))
    patches = load_patches(tmp_path / "p.npz")
    patches.rgb[:2] = 245
    named = patches.stain.copy()
    named[:2] = ["purple", "brown"]
    found = scanners_by_colour(dataclasses.replace(patches, stain=named))
    assert found[:2].tolist() == ["purple", "brown"]
    assert found[2:].tolist() == patches.stain[2:].tolist()
    one = patches.where(patches.stain == "brown")
    assert set(scanners_by_colour(one)) == {"brown"}


def ids_of(material: Material) -> set[str]:
    return {str(i) for part in (material.positive, material.negative, material.validation) for i in part.ids}
