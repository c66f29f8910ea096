import numpy as np
import pytest

from analysis.detector.composing.composed_slide import NoRoom, SlidePlan, compose_slide
from analysis.detector.composing.outlines import LesionOutline, lesion_mask, smooth_blob
from analysis.detector.composing.quilting import quilt
from analysis.detector.composing.tissue_pool import PoolTooSmall, TissuePools, build_pools
from analysis.detector.patch_file import PatchSet
from analysis.detector.training.regions import RegionMaker, make_sheets
from tests.analysis.detector.conftest import tissue_like

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
    slide = compose_slide(plan, pools=pools, outlines=outlines, rng=np.random.default_rng(2))
    assert [lesion.size_class for lesion in slide.lesions] == ["micro", "itc"]
    for lesion in slide.lesions:
        x, y = (round(v) for v in lesion.polygon.representative_point().coords[0])
        assert slide.tumour[y, x]
        assert slide.rgb[y, x].mean() > 110
    outside = slide.tumour.sum() - sum(lesion.polygon.area for lesion in slide.lesions)
    assert abs(outside) < 0.1 * slide.tumour.sum()


def test_a_lesion_that_does_not_fit_is_an_error(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    plan = SlidePlan(width=700, height=500, nodes=1, lesions=("macro",), mpp=1.0)
    with pytest.raises(NoRoom, match="macro does not fit"):
        compose_slide(plan, pools=pools, outlines=outlines, rng=np.random.default_rng(2))


def test_training_regions_mark_exactly_the_laid_tumour(pools: TissuePools, outlines: list[LesionOutline]) -> None:
    rng = np.random.default_rng(5)
    maker = RegionMaker([make_sheets(pools, side=192, rng=rng)], outlines, side=128, mpp=1.0)
    regions = [maker.make(rng) for _ in range(12)]
    assert any((r.instance > 0).any() for r in regions)
    assert any(not (r.instance > 0).any() for r in regions)
    for r in regions:
        assert r.rgb.shape == (128, 128, 3)
        assert r.ignore.mean() < 0.4


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
