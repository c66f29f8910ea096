"""Really blurred tissue is found, sharp tissue is not, whatever the scanner's own sharpness."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from analysis.detector.assessment import judge
from analysis.detector.detection import TissueSummary
from analysis.detector.infer import detect
from analysis.detector.patch_file import load_patches
from analysis.detector.pixel_source import ArraySource
from analysis.detector.weights import LoadedModel
from slides.wsi.focus import cell_sharpness, find_blur, floor_at
from tests.analysis.detector.conftest import tissue_like


def blurred_by(rgb: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.rint(gaussian_filter(rgb.astype(np.float32), (sigma_px, sigma_px, 0))).astype(np.uint8)


def test_sharpness_is_the_root_mean_square_of_the_laplacian_worked_by_hand() -> None:
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[12, 12, 1] = (
        10  # an even row: itself gives 40, its neighbours in the row 10 each; those above and below lie on odd rows
    )
    cells = cell_sharpness(rgb, 8)
    assert cells.shape == (4, 4)
    assert cells[1, 1] == pytest.approx(np.sqrt((40**2 + 2 * 10**2) / 32))
    assert cells.sum() == pytest.approx(cells[1, 1])


@pytest.mark.parametrize("cell_px", [4, 8, 16])
def test_sharpness_is_that_of_a_convolution_on_every_second_row(cell_px: int) -> None:
    rgb = np.random.default_rng(4).integers(0, 256, (35 * cell_px + 2, 9 * cell_px + 3, 3), dtype=np.uint8)
    laplacian = convolve(rgb[..., 1].astype(np.float64), [[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    squares = (laplacian**2)[: 35 * cell_px : 2, : 9 * cell_px]
    expected = np.sqrt(squares.reshape(35, cell_px // 2, 9, cell_px).mean(axis=(1, 3)))
    found = cell_sharpness(rgb, cell_px)
    assert found.shape == (35, 9)
    assert np.allclose(found[1:, 1:-1], expected[1:, 1:-1], rtol=1e-6)


def test_sharpness_of_a_cell_does_not_depend_on_the_window() -> None:
    rgb = tissue_like(256, 256)
    assert np.array_equal(cell_sharpness(rgb, 8)[9:20, 9:20], cell_sharpness(rgb[64:, 64:], 8)[1:12, 1:12])


def focus_of(rgb: np.ndarray) -> float:
    overview = rgb.reshape(rgb.shape[0] // 8, 8, rgb.shape[1] // 8, 8, 3).mean(axis=(1, 3)).astype(np.uint8)
    return find_blur(cell_sharpness(rgb, 8), np.ones(overview.shape[:2], bool), overview, mpp=1.0).blurred_share


def test_half_a_blurred_slide_is_found_beside_the_sharp_half() -> None:
    rgb = tissue_like(512, 512)
    rgb[:, :256] = blurred_by(rgb, 2.0)[:, :256]
    assert focus_of(rgb) == pytest.approx(0.5, abs=0.07)


def test_glass_and_fat_without_detail_are_not_out_of_focus() -> None:
    rgb = tissue_like(512, 512)
    rgb[:, :256] = 236
    assert focus_of(rgb) == 0


def test_the_floor_rises_with_the_spacing() -> None:
    assert floor_at(1.0) < floor_at(2.0) < floor_at(4.0)


@pytest.mark.parametrize(
    ("sigma_um", "share"), [(0.0, (0.0, 0.02)), (0.5, (0.0, 0.05)), (2.0, (0.97, 1.0)), (4.0, (0.99, 1.0))]
)
def test_real_tissue_is_told_sharp_from_blurred(
    sigma_um: float, share: tuple[float, float], reference_data: Path
) -> None:
    patches = load_patches(reference_data / "pcam_patches.npz")
    stained = patches.rgb[(patches.fold == 0)][:144]
    stained = stained[stained[..., 1].mean(axis=(1, 2)) < 190][:64]
    sheet = stained[:, 16:80, 16:80].reshape(8, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(512, 512, 3)
    sheet = blurred_by(sheet, sigma_um) if sigma_um else np.ascontiguousarray(sheet)
    assert share[0] <= focus_of(sheet) <= share[1]


@pytest.mark.parametrize("profile", ["standard", "fast"])
def test_a_blurred_slide_cannot_be_assessed_and_a_sharp_one_can(
    noise_slide: ArraySource, small_model: LoadedModel, profile: str
) -> None:
    sharp = detect(noise_slide, small_model, profile=profile)
    assert (sharp.status, sharp.quality["blurred"]) == ("complete", 0.0)
    out_of_focus = dataclasses.replace(noise_slide, rgb=blurred_by(noise_slide.rgb, 4.0))
    found = detect(out_of_focus, small_model, profile=profile)
    assert found.status == "cannot_assess"
    assert "out of focus" in found.status_reason
    assert found.slide_score is None
    assert found.triage == "cannot_assess"


def test_a_slide_blurred_in_part_is_incomplete(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    rgb = noise_slide.rgb.copy()
    rgb[:, :180] = blurred_by(rgb, 4.0)[:, :180]
    found = detect(dataclasses.replace(noise_slide, rgb=rgb), small_model)
    assert found.status == "incomplete"
    assert 0.05 < found.quality["blurred"] < 0.3
    assert found.triage == "must_review"


def tissue(mm2: float = 50.0, failed: float = 0.0) -> TissueSummary:
    return TissueSummary(mm2=mm2, analysed=1 - failed, failed=failed)


@pytest.mark.parametrize(
    ("summary", "blurred", "share", "slide_mm2", "status", "words"),
    [
        (tissue(), 0.0, 0.2, 400, "complete", ""),
        (tissue(0.01), 0.0, 0.2, 400, "cannot_assess", "No tissue"),
        (tissue(399), 0.0, 0.999, 400, "cannot_assess", "told from glass"),
        (tissue(2), 0.0, 1.0, 2, "complete", ""),
        (tissue(failed=0.21), 0.0, 0.2, 400, "cannot_assess", "could not be read"),
        (tissue(failed=0.01), 0.0, 0.2, 400, "incomplete", "could not be read"),
        (tissue(), 0.31, 0.2, 400, "cannot_assess", "out of focus"),
        (tissue(failed=0.01), 0.1, 0.2, 400, "incomplete", "out of focus"),
        (tissue(), 0.05, 0.2, 400, "complete", ""),
    ],
)
def test_the_declared_limits(
    summary: TissueSummary, blurred: float, share: float, slide_mm2: float, status: str, words: str
) -> None:
    found, reason = judge(summary, blurred=blurred, tissue_share=share, slide_mm2=slide_mm2)
    assert found == status
    assert words in reason
    assert bool(reason) is (status != "complete")
