from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import pyvips
import shapely
from PIL import Image

from analysis.detector import configuration
from analysis.detector.annotations import paint, read_asap
from analysis.detector.compose import SetRequest, _reference_row, _write_of_set, _write_reference
from analysis.detector.composing.artefacts import lay_ink
from analysis.detector.composing.composed_slide import Decoy, NoRoom, SlidePlan, compose_slide
from analysis.detector.composing.edges import soft_edge
from analysis.detector.composing.outlines import LesionOutline, lesion_mask, smooth_blob
from analysis.detector.composing.quilting import quilt
from analysis.detector.composing.sheets import QuiltedTissue, SheetTissue
from analysis.detector.composing.slide_file import doubled
from analysis.detector.composing.slide_set import PlannedSlide, lay_artefacts, plan_set
from analysis.detector.composing.splits import SPLITS, TEST_FOLD, VALIDATION_PERCENT, in_split
from analysis.detector.composing.tags import TAG_BITS
from analysis.detector.composing.tissue_pool import GLASS_RGB, PoolTooSmall, TissuePools, build_pools
from analysis.detector.configuration import load_config
from analysis.detector.patch_file import PatchSet
from analysis.detector.scanner_colour import hue_of
from analysis.detector.slide_evaluation import read_reference
from analysis.detector.training.regions import RegionMaker, make_sheets
from tests.analysis.detector.conftest import scanned, tissue_like

SIDE = 48


def patches_of(grey: int, n: int = 6) -> np.ndarray:
    return np.stack([np.clip(tissue_like(SIDE, SIDE, seed=i) * 0.3 + grey, 0, 255).astype(np.uint8) for i in range(n)])


@pytest.fixture(scope="module")
def pools() -> TissuePools:
    return TissuePools("brown", patches_of(60), patches_of(140), patches_of(100), patches_of(180))


@pytest.fixture(scope="module")
def outlines() -> list[LesionOutline]:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = 100 + 100 * np.stack([np.cos(angle), 0.7 * np.sin(angle)], axis=1).astype(np.float32)
    return [LesionOutline(ring, (ring * 0.3 + 70,), "drawn")]


def test_a_quilt_fills_its_area_and_leaves_the_rest_white() -> None:
    pool = patches_of(90)
    where = np.zeros((200, 300), bool)
    where[:, :100] = True
    out = quilt(pool, height=200, width=300, rng=np.random.default_rng(0), where=where)
    assert out.shape == (200, 300, 3)
    assert (out[:, :100] < 255).any(axis=-1).all()
    assert (out[:, 200:] == 255).all()


def test_the_same_seed_gives_the_same_tissue() -> None:
    first, second = (quilt(patches_of(90), height=150, width=150, rng=np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_sheet_does_not_depend_on_what_was_made_before_it() -> None:
    patches = {"lymphoid": patches_of(60), "fat": patches_of(180)}
    one, other = (SheetTissue(patches, seed=(3,), side=150) for _ in range(2))
    one.sheet("lymphoid")
    assert np.array_equal(one.sheet("fat"), other.sheet("fat"))


def test_an_area_larger_than_a_sheet_is_filled_from_it_without_a_gap() -> None:
    where = np.zeros((400, 500), bool)
    where[20:380, 200:] = True
    tissue = SheetTissue({"lymphoid": patches_of(60)}, seed=(3,), side=150)
    area = tissue.fill("lymphoid", height=400, width=500, rng=np.random.default_rng(1), where=where)
    assert area.shape == (400, 500, 3)
    known = {tuple(p) for p in tissue.sheet("lymphoid").reshape(-1, 3).tolist()}
    assert {tuple(p) for p in area[where].tolist()} <= known


def test_the_edge_of_a_large_mask_is_the_edge_of_its_surroundings() -> None:
    mask = np.zeros((1300, 1100), bool)
    mask[200:900, 300:] = True
    weight = soft_edge(mask, rng=np.random.default_rng(0))
    assert (weight[:150] == 0).all()
    assert (weight[260:840, 360:] == 1).all()
    assert ((weight[195:205, 500:900] > 0) & (weight[195:205, 500:900] < 1)).any(axis=0).all()


def test_the_level_below_a_doubled_one_is_what_was_there_before() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (530, 77, 3), dtype=np.uint8)
    twice = doubled(rgb)
    assert twice.shape == (1060, 154, 3)
    assert np.array_equal(twice.reshape(530, 2, 77, 2, 3).astype(int).sum(axis=(1, 3)), rgb.astype(int) * 4)
    assert (twice[0::2] != twice[1::2]).any()


@pytest.mark.parametrize("longest_um", [50.0, 400.0])
def test_a_lesion_mask_has_the_wanted_size_and_its_hole(outlines: list[LesionOutline], longest_um: float) -> None:
    mask = lesion_mask(outlines[0], longest_um=longest_um, mpp=1.0, rng=np.random.default_rng(1))
    assert max(np.ptp(np.nonzero(mask), axis=1)) + 1 == pytest.approx(longest_um, abs=3)
    assert not mask[mask.shape[0] // 2, mask.shape[1] // 2]


def test_a_blob_is_one_piece_that_fills_its_box() -> None:
    blob = smooth_blob(height=100, width=160, roughness=0.2, rng=np.random.default_rng(3))
    assert blob.shape == (100, 160)
    assert 0.3 < blob.mean() < 0.95


def test_a_composed_slide_holds_the_lesions_asked_for(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    plan = SlidePlan(width=1400, height=1100, nodes=1, lesions=("micro", "itc"), mpp=1.0)
    slide = compose_slide(plan, tissue=QuiltedTissue(pools), outlines=outlines, rng=np.random.default_rng(2))
    assert [lesion.size_class for lesion in slide.lesions] == ["micro", "itc"]
    for lesion in slide.lesions:
        x, y = (round(v) for v in lesion.polygon.representative_point().coords[0])
        assert slide.tumour[y, x]
        assert slide.rgb[y, x].mean() > 110
    outside = slide.tumour.sum() - sum(lesion.polygon.area for lesion in slide.lesions)
    assert abs(outside) < 0.1 * slide.tumour.sum()


def test_every_part_of_a_lesion_has_its_outline(pools: TissuePools) -> None:
    """Two discs on a neck so thin that the soft edge cuts it."""
    left = shapely.Point(0, 0).buffer(100).union(shapely.Point(700, 0).buffer(100))
    shape = left.union(shapely.box(0, -1.5, 700, 1.5))
    ring = np.array(shape.exterior.coords, np.float32)
    dumbbell = [LesionOutline(ring - ring.min(axis=0), (), "drawn")]
    plan = SlidePlan(width=1700, height=1500, nodes=1, lesions=("micro",), mpp=1.0)
    slide = compose_slide(plan, tissue=QuiltedTissue(pools), outlines=dumbbell, rng=np.random.default_rng(2))
    (lesion,) = slide.lesions
    assert len(lesion.polygon.geoms) > 1
    assert lesion.polygon.area == pytest.approx(slide.tumour.sum(), rel=0.1)


def test_a_lesion_that_does_not_fit_is_an_error(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    plan = SlidePlan(width=700, height=500, nodes=1, lesions=("macro",), mpp=1.0)
    with pytest.raises(NoRoom, match="macro does not fit"):
        compose_slide(plan, tissue=QuiltedTissue(pools), outlines=outlines, rng=np.random.default_rng(2))


def test_training_regions_mark_exactly_the_laid_tumour(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    rng = np.random.default_rng(5)
    maker = RegionMaker([make_sheets(pools, side=192, rng=rng)], outlines, side=128, mpp=1.0)
    regions = [maker.make(rng) for _ in range(12)]
    assert any((r.instance > 0).any() for r in regions)
    assert any(not (r.instance > 0).any() for r in regions)
    for r in regions:
        assert r.rgb.shape == (128, 128, 3)
        # out of focus a lesion carries no loss, but normal tissue does: only the rims of lesions are left out of it
        assert (r.ignore & (r.instance == 0)).mean() < 0.2


def test_too_few_patches_of_a_kind_are_named() -> None:
    n = 8
    empty = PatchSet(
        np.full((n, 96, 96, 3), 120, np.uint8),
        np.array(["a"] * n),
        np.zeros(n, np.int8),
        np.array(["brown"] * n),
        np.zeros(n, np.int8),
        np.zeros(n, np.float32),
    )
    with pytest.raises(PoolTooSmall, match="usable tumour patches of stain 'brown'"):
        build_pools(empty, empty, stain="brown")


def test_fat_of_the_other_scanner_gets_the_colour_of_this_one() -> None:
    """One scanner alone has hardly any; as it came it stood out on the slide."""
    n = 96
    rgb = np.stack([tissue_like(SIDE, SIDE, seed=i) for i in range(n)])
    stain = np.where(np.arange(n) % 2 == 0, "brown", "purple")
    kind = np.repeat(["lymph", "tumour", "fat"], n // 3)
    for i in range(n):
        if kind[i] == "fat":
            rgb[i, :, : round(0.7 * SIDE)] = GLASS_RGB
        rgb[i] = scanned(rgb[i], stain[i])
    white = (rgb.min(axis=-1) > 220).mean(axis=(1, 2)).astype(np.float32)
    patches = PatchSet(
        rgb,
        np.array([f"{i}" for i in range(n)]),
        (kind == "tumour").astype(np.int8),
        stain,
        np.zeros(n, np.int8),
        white,
    )
    fat = (kind == "fat") & (white > 0.55)
    assert {*stain[fat]} == {"brown", "purple"}
    for of in ("brown", "purple"):
        own = np.median([hue_of(one) for one in rgb[fat & (stain == of)]])
        found = build_pools(patches, patches.where(kind == "lymph"), stain=of)
        assert len(found.ids["fat"]) > 6
        assert [hue_of(one) for one in found.fat] == pytest.approx([own] * len(found.fat), rel=0.1)


def test_no_patch_serves_two_splits_and_the_test_split_is_the_untouched_fold() -> None:
    n = 2000
    patches = PatchSet(
        np.zeros((n, 1, 1, 3), np.uint8),
        np.array([f"patch_{i}" for i in range(n)]),
        np.zeros(n, np.int8),
        np.array(["brown"] * n),
        (np.arange(n) % 5).astype(np.int8),
        np.zeros(n, np.float32),
    )
    chosen = {split: in_split(patches, split) for split in SPLITS}
    assert (sum(c.astype(int) for c in chosen.values()) == 1).all()
    assert (chosen["test"] == (patches.fold == TEST_FOLD)).all()
    with pytest.raises(ValueError, match="unknown split 'all'"):
        in_split(patches, "all")


def test_validation_slides_use_the_patches_that_training_keeps_aside() -> None:
    config = load_config(Path(configuration.__file__).parent / "configs" / "lite.toml")
    assert config.data.validation_percent == VALIDATION_PERCENT
    assert config.data.test_fold == TEST_FOLD


def test_half_of_a_set_has_lesions_of_every_class_in_both_stains() -> None:
    planned = plan_set(prefix="test", slides=40, seed=7, mpp=0.97)
    groups = Counter((one.group, one.stain) for one in planned)
    assert sum(n for (group, _), n in groups.items() if group == "negative") == 20
    assert set(groups) == {(g, s) for g in ("negative", "itc", "micro", "macro") for s in ("brown", "purple")}
    assert all(bool(one.plan.lesions) == (one.group != "negative") for one in planned)
    assert len({one.name for one in planned}) == 40
    assert planned == plan_set(prefix="test", slides=40, seed=7, mpp=0.97)


def test_a_slide_of_a_set_is_laid_out_as_camelyon16(
    pools: TissuePools, outlines: list[LesionOutline], tmp_path: Path
) -> None:
    decoys = (Decoy("lymphoid", "itc"),)
    plan = SlidePlan(width=1400, height=1100, nodes=1, lesions=("micro", "itc"), mpp=1.0, decoys=decoys)
    rng = np.random.default_rng(2)
    slide = compose_slide(plan, tissue=QuiltedTissue(pools), outlines=outlines, rng=rng)
    planned = PlannedSlide("test_001", "brown", "micro", plan, folds=1, blurs=1, strokes=1)
    for name in ("images", "annotations", "masks", "tags"):
        (tmp_path / name).mkdir()
    artefacts = lay_artefacts(slide, planned, rng)
    request = SetRequest(tmp_path, "test", slides=1, seed=2, masks=True)
    note = _write_of_set(request, slide, planned, artefacts)
    _write_reference(tmp_path, [_reference_row(slide, "test_001", stain="brown")])

    reference = read_reference(tmp_path)[0]
    assert (reference.tumour, reference.size_class) == (True, "micro")
    assert reference.annotation is not None
    image = pyvips.Image.new_from_file(str(reference.path))
    assert (image.width, image.height) == (2800, 2200)
    assert 1000 / image.xres == pytest.approx(0.5, rel=1e-3)
    painted = paint(read_asap(reference.annotation), rows=1100, cols=1400, cell_x0=2, cell_y0=2)
    assert (painted & slide.tumour).sum() > 0.97 * (painted | slide.tumour).sum()
    mask = pyvips.Image.new_from_file(str(tmp_path / "masks" / "test_001_mask.tif")).numpy()
    assert np.array_equal(mask[::2, ::2] == 2, slide.tumour)
    assert {a["kind"] for a in note["artefacts"]} <= {"ink", "fold", "blur"}
    bits = np.asarray(Image.open(tmp_path / "tags" / "test_001.png"))
    assert ((bits & TAG_BITS["tissue"]) > 0).mean() == pytest.approx(note["tissue_mm2"] / 1.54, abs=0.02)


def test_ink_keeps_away_from_lesions(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    plan = SlidePlan(width=1400, height=1100, nodes=1, lesions=("micro",), mpp=1.0)
    rng = np.random.default_rng(2)
    slide = compose_slide(plan, tissue=QuiltedTissue(pools), outlines=outlines, rng=rng)
    before = slide.rgb.copy()
    laid = [lay_ink(slide, rng) for _ in range(6)]
    assert any(laid)
    assert (slide.rgb != before).any()
    assert np.array_equal(slide.rgb[slide.tumour], before[slide.tumour])
