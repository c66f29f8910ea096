"""Reading a slide in memory with a small network: completeness, seams, cancelling, resuming."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.detector import reading
from analysis.detector.detection import Detection, detection_to_json
from analysis.detector.infer import DetectionCancelled, ScaleUnknown, cut_fields, detect
from analysis.detector.pixel_source import ArraySource
from analysis.detector.weights import LoadedModel
from tests.analysis.detector.conftest import engine_or_skip


def result_of(detection: Detection) -> tuple[object, ...]:
    """All of a detection but its clock."""
    values = {f.name: getattr(detection, f.name) for f in dataclasses.fields(detection)}
    values.pop("seconds")
    heatmap = values.pop("heatmap")
    return (*values.items(), heatmap.tobytes())


SMALL_WINDOW_PX = 512 * 512


def test_the_result_does_not_depend_on_how_the_tissue_is_cut(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    first, second = (
        detect(noise_slide, small_model, grid_shift_px=shift, margin_px=192, largest_window_px=size)
        for shift, size in ((0, SMALL_WINDOW_PX), (128, 576 * 576))
    )
    assert first.lesions
    assert np.abs(first.heatmap.astype(int) - second.heatmap).max() <= 1
    assert len(first.lesions) == len(second.lesions)
    for a, b in zip(first.lesions, second.lesions, strict=True):
        assert a.size_class == b.size_class
        assert a.peak_p == pytest.approx(b.peak_p, abs=1e-3)
        assert a.score == pytest.approx(b.score, abs=1e-3)


@pytest.mark.parametrize(
    ("engine_name", "profile"), [("torch", "standard"), ("openvino", "standard"), ("openvino", "fast")]
)
def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(
    noise_slide: ArraySource, small_model: LoadedModel, tmp_path: Path, profile: str, engine_name: str
) -> None:
    one, two = (engine_or_skip(small_model, engine_name, workers=n) for n in (1, 2))
    read = partial(detect, noise_slide, small_model, profile=profile, largest_window_px=SMALL_WINDOW_PX)
    whole = read(engine=one)
    calls = 0

    def stop_in_the_middle() -> bool:
        nonlocal calls
        calls += 1
        return calls > 8

    with pytest.raises(DetectionCancelled):
        read(engine=two, should_stop=stop_in_the_middle, checkpoint_dir=tmp_path)
    kept = sorted(tmp_path.glob("block-*.npz"))
    assert kept
    kept[-1].write_bytes(kept[-1].read_bytes()[:100])  # as after a power cut
    resumed = read(engine=two, checkpoint_dir=tmp_path)
    assert result_of(resumed) == result_of(whole)


def test_blocks_of_another_slide_are_not_taken(
    noise_slide: ArraySource, small_model: LoadedModel, tmp_path: Path
) -> None:
    detect(noise_slide, small_model, checkpoint_dir=tmp_path)
    other = ArraySource(np.ascontiguousarray(noise_slide.rgb[:600, ::-1]), 1.0, 1.0)
    assert result_of(detect(other, small_model, checkpoint_dir=tmp_path)) == result_of(detect(other, small_model))


def test_blocks_of_other_windows_are_not_taken(
    noise_slide: ArraySource, small_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change of release in the middle of a run: the windows may be planned otherwise then."""
    read = partial(detect, noise_slide, small_model, largest_window_px=SMALL_WINDOW_PX)
    read(checkpoint_dir=tmp_path)
    planned = reading.plan_windows
    monkeypatch.setattr(reading, "plan_windows", lambda wanted, **how: planned(wanted, **{**how, "shift_px": 128}))
    assert result_of(read(checkpoint_dir=tmp_path)) == result_of(read())


def test_cancelling_before_the_first_window_raises(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    with pytest.raises(DetectionCancelled):
        detect(noise_slide, small_model, should_stop=lambda: True)


def test_progress_rises_to_the_end_of_each_stage(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    reported: list[tuple[str, float]] = []
    detect(noise_slide, small_model, on_progress=lambda stage, fraction: reported.append((stage, fraction)))
    reading = [fraction for stage, fraction in reported if stage == "reading"]
    assert reading == sorted(reading)
    assert reading[-1] == 1.0
    assert ("lesions", 1.0) in reported
    assert reported[-1] == ("boxes", 1.0)


def test_without_a_scale_nothing_is_measured(small_model: LoadedModel) -> None:
    source = ArraySource(np.full((100, 100, 3), 200, np.uint8), None, None)
    with pytest.raises(ScaleUnknown, match="never guessed"):
        detect(source, small_model)


def test_a_blank_slide_cannot_be_assessed(small_model: LoadedModel) -> None:
    detection = detect(ArraySource(np.full((1000, 1000, 3), 244, np.uint8), 1.0, 1.0), small_model)
    assert detection.status == "cannot_assess"
    assert detection.slide_score is None
    assert "No tissue" in detection.status_reason
    assert detection.lesions == ()


@pytest.mark.parametrize(("failed_px", "status"), [(0, "complete"), (100, "incomplete"), (500, "cannot_assess")])
def test_what_was_not_read_is_never_negative(
    noise_slide: ArraySource, small_model: LoadedModel, failed_px: int, status: str
) -> None:
    failed = np.zeros(noise_slide.rgb.shape[:2], bool)
    failed[80 : 80 + failed_px, 80 : 80 + failed_px] = True
    detection = detect(dataclasses.replace(noise_slide, failed=failed), small_model)
    assert detection.status == status
    assert detection.tissue.analysed + detection.tissue.failed == pytest.approx(1)
    assert (detection.slide_score is None) is (status == "cannot_assess")
    assert detection.heatmap[10 : 10 + failed_px // 8, 10 : 10 + failed_px // 8].max(initial=0) == 0


def test_the_same_slide_at_another_scale_gives_level_0_coordinates(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    finer = ArraySource(noise_slide.rgb.repeat(2, 0).repeat(2, 1), 0.5, 0.5)
    a, b = detect(noise_slide, small_model), detect(finer, small_model)
    assert a.heatmap.shape == b.heatmap.shape
    assert len(a.lesions) == len(b.lesions)
    assert b.lesions[0].peak == pytest.approx([2 * v for v in a.lesions[0].peak])
    assert b.lesions[0].longest_diameter_mm == pytest.approx(a.lesions[0].longest_diameter_mm)
    assert b.heatmap_cell_px0 == (16.0, 16.0)


def test_fields_show_the_peak_in_their_middle(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    lesions = detect(noise_slide, small_model).lesions
    fields = cut_fields(noise_slide, lesions, max_fields=2, side_px=128, mpp=1.0)
    assert len(fields) == min(2, len(lesions))
    image = np.asarray(Image.open(io.BytesIO(fields[0])))
    x, y = (round(v) for v in lesions[0].peak)
    expected = noise_slide.read_at_mpp(x - 64, y - 64, 128, 128, 1.0).rgb
    assert image.shape == (128, 128, 3)
    assert abs(image.astype(float).mean() - expected.mean()) < 3


def test_an_unknown_profile_is_refused(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="unknown profile 'hasty'"):
        detect(noise_slide, small_model, profile="hasty")


def test_the_json_has_the_promised_fields(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    document = detection_to_json(detect(noise_slide, small_model), "a.tif", 896, 640, (1.0, 1.0))
    assert {"slide", "width", "height", "mpp", "model", "status", "slide_score", "tissue", "lesions", "seconds"} <= set(
        document
    )
    assert set(document["model"]) == {"version", "sha256", "profile", "engine"}
    assert set(document["tissue"]) == {"mm2", "analysed", "failed"}
    assert set(document["seconds"]) == {"read", "network", "lesions", "boxes", "total"}
    wanted = {"score", "peak", "outline", "longest_diameter_mm", "area_mm2", "size_class", "borderline"}
    assert wanted <= set(document["lesions"][0])
