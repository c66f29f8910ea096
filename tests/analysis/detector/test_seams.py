"""The shipped model on slides of real tissue: where windows are cut and which way up a slide lies changes nothing.

Everything is read from files, through the decoding process, as in use.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from shapely.geometry import Polygon

from analysis.detector import compose
from analysis.detector.card import default_model_folder
from analysis.detector.detection import Detection, LesionFinding
from analysis.detector.infer import detect
from analysis.detector.reading import PROFILES, margins_px
from analysis.detector.reading_plan import LARGEST_WINDOW_PX, MAP_MPP, plan_windows
from analysis.detector.slide_figures import threshold_of
from analysis.detector.weights import LoadedModel, load_model
from slides.wsi.sandbox import open_pixels
from slides.wsi.tissue import tissue_mask
from tests.analysis.detector.conftest import engine_or_skip
from tests.analysis.detector.made_slides import (
    BLOCK_PX,
    DEMO,
    MICRO_AND_AROUND,
    cut_of_demo,
    oriented,
    place_before,
    place_in_mosaic,
    read_whole,
    write_cut,
    write_mosaic,
)

SMALL_CORE_PX = 512
THIRD_OF_A_SMALL_WINDOW_PX = 256
"""A third of such a core with its margins."""
THIRD_OF_A_WINDOW_PX = 448
"""Of the core of a window of LARGEST_WINDOW_PX."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(default_model_folder())


def small_window_px(model: LoadedModel) -> int:
    """Pixels of a window, so that a small slide needs several."""
    return (SMALL_CORE_PX + 2 * margins_px(model.config)[0]) ** 2


@pytest.fixture(scope="module")
def read(model: LoadedModel) -> Callable[..., Detection]:
    engine = engine_or_skip(model, "auto")

    def read_file(path: Path, profile: str, *, shift_px: int = 0, largest_px: int = 0) -> Detection:
        with open_pixels(path) as source:
            return detect(
                source,
                model,
                profile=profile,
                engine=engine,
                grid_shift_px=shift_px,
                largest_window_px=largest_px or small_window_px(model),
            )

    return read_file


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cut(tmp_path_factory.mktemp("micro") / "micro.tif", cut_of_demo(*MICRO_AND_AROUND))


def owners_of(path: Path, model: LoadedModel, *, shift_px: int) -> np.ndarray:
    """The number of the small window of `standard` that each cell of the map comes from; -1 where there is none."""
    with open_pixels(path) as source:
        wanted = tissue_mask(source.thumbnail_at_mpp(MAP_MPP).rgb, MAP_MPP)
    plan = plan_windows(
        wanted,
        mpp=model.config.read.mpp,
        margin_px=margins_px(model.config)[0],
        shift_px=shift_px,
        largest_px=small_window_px(model),
    )
    owner = np.full(wanted.shape, -1)
    for number, window in enumerate(plan):
        owner[window.row0 : window.row1, window.col0 : window.col1] = number
    return owner


def lines_through(lesion: LesionFinding, owner: np.ndarray) -> tuple[list[int], list[int]]:
    """Columns and rows of the map in front of which another window begins, inside of the lesion's box."""
    left, top, right, bottom = (round(v / MAP_MPP) for v in lesion.bbox0)  # of a slide of 1 um per px
    part = owner[top:bottom, left:right]
    across, down = (part[:, 1:] != part[:, :-1]).any(axis=0), (part[1:] != part[:-1]).any(axis=1)
    return list(np.flatnonzero(across) + left + 1), list(np.flatnonzero(down) + top + 1)


def assert_alike(a: LesionFinding, b: LesionFinding, *, sure: bool = True) -> None:
    """`sure` False: the rim of a faint find lies where the map is nearly flat, and one cell of it at the growing
    threshold changes its area and mean."""
    assert a.size_class == b.size_class
    assert a.peak_p == pytest.approx(b.peak_p, abs=1e-3)
    if not sure:
        return
    assert a.score == pytest.approx(b.score, abs=1e-3)
    assert a.area_mm2 == pytest.approx(b.area_mm2, abs=2 * MAP_MPP**2 / 1e6, rel=0.01)


def assert_same_lesions(first: Detection, second: Detection, *, sure_from: float = 0.0) -> None:
    """`sure_from`: the score from which on area and score agree too, beside number, class and peak."""
    assert first.lesions
    assert len(first.lesions) == len(second.lesions)
    left = list(second.lesions)
    for lesion in first.lesions:  # two of nearly the same score may change places in the list
        partner = min(left, key=lambda other: np.hypot(*np.subtract(lesion.peak, other.peak)))
        left.remove(partner)
        assert_alike(lesion, partner, sure=max(lesion.score, partner.score) >= sure_from)


# -- the grid moves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_moved_grid_finds_the_same_lesions(
    micro: Path, model: LoadedModel, read: Callable[..., Detection], profile: str
) -> None:
    plans = [owners_of(micro, model, shift_px=shift) for shift in (0, THIRD_OF_A_SMALL_WINDOW_PX)]
    assert (plans[0].max(), plans[1].max()) > (0, 0)
    assert not np.array_equal(*plans)
    first, second = (read(micro, profile, shift_px=shift) for shift in (0, THIRD_OF_A_SMALL_WINDOW_PX))
    assert_same_lesions(first, second)
    if profile == "standard":
        assert np.abs(first.heatmap.astype(int) - second.heatmap).max() <= 1


def test_a_lesion_on_a_line_or_corner_of_the_grid_is_found_as_one_that_no_line_cuts(
    tmp_path: Path, model: LoadedModel, read: Callable[..., Detection]
) -> None:
    path = write_mosaic(tmp_path / "mosaic.tif", across=2, down=2)
    found = read(path, "standard", shift_px=THIRD_OF_A_SMALL_WINDOW_PX)
    assert sorted(map(place_in_mosaic, found.lesions)) == sorted(itertools.product(range(2), range(2)))
    for lesion in found.lesions:
        assert_alike(lesion, found.lesions[0])
    owner = owners_of(path, model, shift_px=THIRD_OF_A_SMALL_WINDOW_PX)
    cut = {tuple(bool(lines) for lines in lines_through(lesion, owner)) for lesion in found.lesions}
    assert {(False, False), (True, True)} < cut  # and one line alone


# -- the slide is turned -------------------------------------------------------------------------------------------------


def polygon(lesion: LesionFinding, orientation: int, shape: tuple[int, int]) -> Polygon:
    """Of a slide in one of the eight orientations; on the slide of `shape` (height, width) as it was before."""
    height, width = shape
    ring = [place_before(x, y, orientation, width=width, height=height) for x, y in lesion.outline[0]]
    return Polygon(ring).buffer(0)


METASTASES = ("micro", "macro")
ISOLATED = ("itc",)


def assert_same_when_turned(
    plain: Detection,
    turned: Detection,
    *,
    orientation: int,
    shape: tuple[int, int],
    threshold: float,
    classes: tuple[str, ...] = METASTASES + ISOLATED,
) -> None:
    """What is of `classes` and at the threshold or above on one slide is found on the other, each by a lesion of its own.

    Fainter finds, near the least score there is, may come and go: the network does not see a turned cell alike.
    """

    def counts(lesion: LesionFinding) -> bool:
        return lesion.score >= threshold and lesion.size_class in classes

    outlines = (
        [polygon(le, 0, shape) for le in plain.lesions],
        [polygon(le, orientation, shape) for le in turned.lesions],
    )
    shared = np.array([[a.intersection(b).area for b in outlines[1]] for a in outlines[0]]).reshape(
        len(outlines[0]), len(outlines[1])
    )
    pairs = [(a, b) for a, b in zip(*linear_sum_assignment(shared, maximize=True), strict=True) if shared[a, b] > 0]
    for lesions, matched in ((plain.lesions, {a for a, _ in pairs}), (turned.lesions, {b for _, b in pairs})):
        assert {n for n, lesion in enumerate(lesions) if counts(lesion)} <= matched
    sure = [(plain.lesions[a], turned.lesions[b]) for a, b in pairs]
    sure = [(a, b) for a, b in sure if counts(a) or counts(b)]
    assert sure
    assert np.median([abs(a.score - b.score) for a, b in sure]) <= 0.05


@pytest.mark.parametrize("orientation", [1, 4], ids=["turned by a quarter", "flipped"])
def test_a_turned_slide_has_the_same_lesions(
    micro: Path, tmp_path: Path, model: LoadedModel, read: Callable[..., Detection], orientation: int
) -> None:
    rgb = cut_of_demo(*MICRO_AND_AROUND)
    turned = write_cut(tmp_path / "turned.tif", oriented(rgb, orientation))
    assert_same_when_turned(
        read(micro, "standard"),
        read(turned, "standard"),
        orientation=orientation,
        shape=rgb.shape[:2],
        threshold=threshold_of(model, profile="standard"),
    )


# -- thorough ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["the demo", "another scanner's stain"])
def whole_slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A node slide with a macrometastasis, a micrometastasis and isolated tumour cells."""
    if request.param == "the demo":
        return read_whole(DEMO)
    data = request.getfixturevalue("reference_data")
    folder = tmp_path_factory.mktemp("composed")
    size = {"width": 4608, "height": 4096, "nodes": 1}
    asked = compose.Request(
        folder,
        1,
        0,
        ("macro", "micro", "itc"),
        fold=4,
        outlines="valid",
        stain="purple",
        seed=5,
        quality=90,
        prefix="c",
        **size,
    )
    (path,) = compose.compose_folder(asked, data=data, say=lambda text: None)
    return read_whole(path)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_moved_grids_find_the_same_lesions_on_a_whole_slide(
    whole_slide: np.ndarray, tmp_path: Path, model: LoadedModel, read: Callable[..., Detection], profile: str
) -> None:
    threshold = threshold_of(model, profile="standard")
    path = write_cut(tmp_path / "whole.tif", whole_slide)
    first = read(path, profile, largest_px=LARGEST_WINDOW_PX)
    for shift, largest in ((THIRD_OF_A_WINDOW_PX, LARGEST_WINDOW_PX), (THIRD_OF_A_SMALL_WINDOW_PX, 0)):
        assert_same_lesions(first, read(path, profile, shift_px=shift, largest_px=largest), sure_from=threshold)


@pytest.fixture(scope="module")
def all_ways_up(
    whole_slide: np.ndarray, tmp_path_factory: pytest.TempPathFactory, read: Callable[..., Detection]
) -> list[Detection]:
    folder = tmp_path_factory.mktemp("turned")
    paths = [write_cut(folder / f"{n}.tif", oriented(whole_slide, n)) for n in range(8)]
    return [read(path, "standard", largest_px=LARGEST_WINDOW_PX) for path in paths]


def assert_same_all_ways_up(
    found: list[Detection], shape: tuple[int, ...], model: LoadedModel, classes: tuple[str, ...]
) -> None:
    threshold = threshold_of(model, profile="standard")
    for orientation, turned in enumerate(found[1:], start=1):
        assert_same_when_turned(
            found[0], turned, orientation=orientation, shape=(shape[0], shape[1]), threshold=threshold, classes=classes
        )


@pytest.mark.slow
def test_a_whole_slide_has_the_same_metastases_in_all_eight_orientations(
    whole_slide: np.ndarray, all_ways_up: list[Detection], model: LoadedModel
) -> None:
    assert_same_all_ways_up(all_ways_up, whole_slide.shape, model, METASTASES)


@pytest.mark.slow
@pytest.mark.parametrize("whole_slide", ["another scanner's stain"], indirect=True)
def test_isolated_tumour_cells_are_found_in_all_eight_orientations(
    whole_slide: np.ndarray, all_ways_up: list[Detection], model: LoadedModel
) -> None:
    assert_same_all_ways_up(all_ways_up, whole_slide.shape, model, ISOLATED)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_a_lesion_is_found_alike_wherever_lines_and_corners_fall(
    tmp_path: Path, model: LoadedModel, read: Callable[..., Detection], profile: str
) -> None:
    across, down = 5, 5
    path = write_mosaic(tmp_path / "mosaic.tif", across=across, down=down)
    corners: set[tuple[int, int]] = set()
    one = None
    for shift in range(0, BLOCK_PX, 64):
        found = read(path, profile, shift_px=shift)
        assert len(found.lesions) == across * down
        owner = owners_of(path, model, shift_px=shift)
        for lesion in found.lesions:
            one = one or lesion
            assert_alike(lesion, one)
            cols, rows = lines_through(lesion, owner)
            in_block = [[round(v * MAP_MPP) % BLOCK_PX for v in lines] for lines in (cols, rows)]
            corners |= set(itertools.product(*in_block))
    if profile == "standard":  # where `fast` cuts depends on what it has found
        lines = [sorted({corner[axis] for corner in corners}) for axis in (0, 1)]
        assert min(len(places) for places in lines) >= 2
        assert len(corners) >= 4
