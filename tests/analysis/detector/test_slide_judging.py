"""Slides with drawn lesions and drawn finds, whose judgement can be said beforehand. One level-0 pixel is 1 um."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from shapely.geometry import Polygon, box

from analysis.detector.annotations import write_asap
from analysis.detector.detection import Detection, LesionFinding, TissueSummary
from analysis.detector.detection_cache import DetectionCache
from analysis.detector.slide_figures import compare, summarise
from analysis.detector.slide_judging import PLAIN, JudgedSlide, Reference, SlideTags, judge
from analysis.detector.weights import LoadedModel
from analysis.metrics.staging import size_class

CELL = 8.0
ROWS, COLS = 400, 500
THRESHOLD = 0.8


def find(shape: Polygon, score: float, *, peak: tuple[float, float] | None = None) -> LesionFinding:
    """A lesion found with exactly this outline."""
    left, top, right, bottom = shape.bounds
    longest = float(np.hypot(right - left, bottom - top)) / 1000
    return LesionFinding(
        rank=1,
        score=score,
        peak=peak or (shape.centroid.x, shape.centroid.y),
        outline=[list(shape.exterior.coords)[:-1], *(list(ring.coords)[:-1] for ring in shape.interiors)],
        bbox0=shape.bounds,
        longest_diameter_mm=longest,
        ellipse_major_mm=longest,
        area_mm2=shape.area / 1e6,
        size_class=size_class(longest),
        borderline=False,
        mean_p=score,
        peak_p=score,
        box_score=None,
    )


def detection(finds: list[LesionFinding], *, score: float | None = None, seconds: float = 2.0) -> Detection:
    best = max((le.score for le in finds), default=0.1) if score is None else score
    return Detection(
        status="complete",
        status_reason="",
        slide_score=best,
        tissue=TissueSummary(mm2=10.0, analysed=1.0, failed=0.0),
        lesions=tuple(finds),
        heatmap=np.zeros((ROWS, COLS), np.uint8),
        heatmap_mpp=CELL,
        heatmap_x0=0.0,
        heatmap_y0=0.0,
        heatmap_cell_px0=(CELL, CELL),
        seconds={"total": seconds},
        model={},
    )


def judged(
    folder: Path, name: str, truth: list[Polygon], finds: list[LesionFinding], *, tags: SlideTags | None = None
) -> JudgedSlide:
    annotation = folder / f"{name}.xml" if truth else None
    if annotation:
        write_asap(annotation, truth)
    reference = Reference(folder / f"{name}.tif", annotation, bool(truth), None)
    return judge(reference, detection(finds), threshold=THRESHOLD, tags=tags)


MICRO = box(400, 400, 1000, 900)
MACRO = box(1500, 500, 3500, 2100)
ITC = box(400, 2000, 480, 2080)


def test_a_lesion_found_whole_is_one_piece_of_the_right_class(tmp_path: Path) -> None:
    one = judged(tmp_path, "a", [MICRO], [find(MICRO, 0.9)])
    (lesion,) = one.lesions
    assert (lesion.size_class, lesion.found_class, lesion.pieces, lesion.found) == ("micro", "micro", 1, True)
    assert lesion.longest_mm == pytest.approx(0.781, abs=0.001)
    assert one.overlap[0] == one.overlap[1] == one.overlap[2] > 0
    assert one.hits.lesions == (0.9,)
    assert one.hits.false_positives == ()


def test_a_lesion_in_two_pieces_and_two_lesions_in_one_are_told_apart(tmp_path: Path) -> None:
    halves = [find(box(400, 400, 650, 900), 0.9), find(box(760, 400, 1000, 900), 0.85)]
    broken = judged(tmp_path, "broken", [MICRO], halves)
    assert [le.pieces for le in broken.lesions] == [2]
    assert broken.merged == 0

    pair = [MICRO, box(1300, 400, 1700, 900)]
    bridged = judged(tmp_path, "bridged", pair, [find(box(400, 400, 1700, 900), 0.9, peak=(700, 650))])
    assert [le.pieces for le in bridged.lesions] == [1, 1]
    assert bridged.merged == 1
    assert sorted(bridged.hits.lesions) == [0.0, 0.9]  # one peak hits one lesion


def test_a_find_below_the_threshold_counts_for_froc_alone(tmp_path: Path) -> None:
    weak = judged(tmp_path, "weak", [MICRO], [find(MICRO, 0.5)])
    assert weak.hits.lesions == (0.5,)
    assert (weak.called, weak.lesions[0].found, weak.lesions[0].pieces) == ("negative", False, 0)
    assert weak.overlap[1] == 0


@pytest.mark.parametrize(("side", "in_band"), [(120, False), (133, True), (150, True), (170, False)])
def test_the_borderline_band_lies_about_the_limits(tmp_path: Path, side: int, in_band: bool) -> None:
    """Diagonals of 170, 188, 212 and 240 um: measured on the outline, not on cells of 8 um."""
    one = judged(tmp_path, "a", [box(800, 800, 800 + side, 800 + side)], [])
    assert one.lesions[0].longest_mm == pytest.approx(side * 2**0.5 / 1000, abs=0.001)
    assert one.lesions[0].in_band == in_band


def test_a_false_find_is_put_down_to_what_lies_near_its_peak(tmp_path: Path) -> None:
    bits = np.zeros((ROWS, COLS), np.uint8)
    bits[100:110, 100:110] = 1 | 4
    tags = SlideTags(bits, {"ink": 1, "fold": 2, "tissue": 4})
    near, far = find(box(820, 820, 860, 860), 0.9), find(box(2400, 2400, 2460, 2460), 0.85)
    one = judged(tmp_path, "normal", [], [near, far], tags=tags)
    assert one.false_tags == ((0.9, ("ink",)), (0.85, (PLAIN,)))
    assert one.tag_mm2["ink"] == pytest.approx(100 * 64e-6)
    edge = SlideTags(bits, tags.names).near(0, 0)
    assert edge == (PLAIN,)


@pytest.fixture
def four(tmp_path: Path) -> list[JudgedSlide]:
    """A macro found with a micro missed; a micro found; an ITC-only slide missed; a normal slide with two false finds."""
    tags = SlideTags(np.full((ROWS, COLS), 128 | 8, np.uint8), {"fat": 8, "tissue": 128})
    alarms = [find(box(800, 800, 840, 840), 0.95), find(box(1600, 800, 1640, 840), 0.3)]
    return [
        judged(tmp_path, "macro", [MACRO, MICRO], [find(MACRO, 0.99)]),
        judged(tmp_path, "micro", [MICRO], [find(box(400, 400, 1000, 650), 0.9)]),
        judged(tmp_path, "itc", [ITC], []),
        judged(tmp_path, "normal", [], alarms, tags=tags),
    ]


def test_the_figures_of_four_slides_are_those_counted_by_hand(
    four: list[JudgedSlide], small_model: LoadedModel
) -> None:
    found = summarise(four, model=small_model, profile="standard", threshold=THRESHOLD, composed=True, repeats=50)
    assert found["composed"] is True
    assert (found["slides"], found["tumour_slides"], found["itc_only_slides"]) == (4, 3, 1)
    assert found["slide_auc"] == pytest.approx(1 / 3)  # 0.99 above 0.95; 0.9 and 0.1 below it
    assert found["slide_auc_without_itc_only"] == pytest.approx(1 / 2)
    assert (found["lesions"], found["lesions_found"], found["itc"], found["itc_found"]) == (3, 2, 1, 0)
    # falling: 0.99 hit, 0.95 false, 0.9 hit, 0.3 false; a quarter of a false find a slide is one of them
    assert found["froc_stepped_at"] == {
        "0.25": 0.3333,
        "0.5": 0.6667,
        "1": 0.6667,
        "2": 0.6667,
        "4": 0.6667,
        "8": 0.6667,
    }
    assert found["froc_stepped"] == pytest.approx((1 / 3 + 5 * 2 / 3) / 6)
    assert found["sensitivity_by_class"]["micro"] | {"interval": None} == {
        "lesions": 2,
        "found": 1,
        "share": 0.5,
        "interval": None,
    }
    assert found["sensitivity_by_class"]["macro"]["share"] == 1
    assert found["false_positives_per_slide"] == 0.25
    assert found["false_positives_by_tag"]["fat"]["false"] == 1
    assert found["slide_calls"]["sensitivity"] == pytest.approx(0.6667)
    assert found["slide_calls"]["specificity"] == 0
    labels = found["size_class_labels"]
    counts = np.array(found["size_class_confusion"])
    assert counts[labels.index("macro"), labels.index("macro")] == 1
    assert counts[labels.index("itc"), labels.index("negative")] == 1
    assert counts[labels.index("negative"), labels.index("itc")] == 1
    assert counts.sum() == 4
    assert found["one_lesion_each"] == {
        "metastases": 4,
        "in_no_piece": 2,
        "in_one_piece": 2,
        "in_several_pieces": 0,
        "most_pieces": 1,
        "found_lesions_over_several": 0,
    }
    both, all_found, all_true = (sum(j.overlap[i] for j in four) for i in range(3))
    assert found["dice"] == pytest.approx(2 * both / (all_found + all_true))
    assert 0 < found["dice"] < 1
    assert found["seconds_total"] == 8.0


def test_two_readings_of_the_same_slides_are_compared_in_pairs(four: list[JudgedSlide], tmp_path: Path) -> None:
    better = [*four[:3], judged(tmp_path, "normal", [], [])]
    gap = compare(four, better, thresholds=(THRESHOLD, THRESHOLD), repeats=50)
    assert gap["slide_auc"]["first"] == pytest.approx(1 / 3)
    assert gap["slide_auc"]["second"] == pytest.approx(5 / 6)  # one tie at 0.1
    assert gap["slide_auc"]["difference"] == pytest.approx(0.5)
    assert gap["false_positives_per_slide"]["difference"] == -0.25
    assert gap["lesion_sensitivity"]["difference"] == 0
    same = compare(four, four, thresholds=(THRESHOLD, THRESHOLD), repeats=50)
    assert all(one["difference"] == 0 and one["interval"] == [0, 0] for one in same.values())
    with pytest.raises(ValueError, match="not of the same slides"):
        compare(four, four[::-1], thresholds=(THRESHOLD, THRESHOLD))


def test_what_was_found_on_a_slide_is_kept_for_that_slide_and_reading(tmp_path: Path, small_model: LoadedModel) -> None:
    slide, cache = tmp_path / "a.tif", DetectionCache(tmp_path / "found")
    slide.write_bytes(b"some slide")
    ring = MICRO.difference(box(500, 500, 600, 600))
    kept = detection([find(ring, 0.9)])
    kept.heatmap[3, 5] = 200
    assert cache.load(slide, small_model, profile="standard") is None
    cache.store(slide, small_model, kept, profile="standard")
    back = cache.load(slide, small_model, profile="standard")
    assert back is not None
    assert np.array_equal(back.heatmap, kept.heatmap)
    assert back.lesions == kept.lesions
    assert (back.slide_score, back.tissue, back.seconds) == (kept.slide_score, kept.tissue, kept.seconds)
    assert cache.load(slide, small_model, profile="fast") is None
    path = cache.path_of(slide, small_model, profile="standard")
    path.write_bytes(path.read_bytes()[:100])
    assert cache.load(slide, small_model, profile="standard") is None
    cache.store(slide, small_model, kept, profile="standard")
    slide.write_bytes(b"another slide")
    assert cache.load(slide, small_model, profile="standard") is None


def test_what_two_networks_of_one_file_found_is_not_what_one_of_them_finds(
    tmp_path: Path, small_model: LoadedModel
) -> None:
    slide, cache = tmp_path / "a.tif", DetectionCache(tmp_path / "found")
    slide.write_bytes(b"some slide")
    small = dataclasses.replace(small_model.config.network, pyramid_channels=8)
    scanner = dataclasses.replace(small_model, config=dataclasses.replace(small_model.config, network=small))
    cache.store(slide, dataclasses.replace(small_model, scanner=scanner), detection([]), profile="standard")
    assert cache.load(slide, small_model, profile="standard") is None
    assert cache.load(slide, scanner, profile="standard") is None


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs pip install 'metadet[fast]'")
def test_what_floats_found_does_not_stand_for_8_bits(tmp_path: Path, small_model: LoadedModel) -> None:
    slide, cache = tmp_path / "a.tif", DetectionCache(tmp_path / "found")
    slide.write_bytes(b"some slide")
    cache.store(slide, small_model, detection([]), profile="standard")
    in_8_bits = dataclasses.replace(small_model, int8={"some.range": torch.zeros(2)})
    assert cache.load(slide, small_model, profile="standard") is not None
    assert cache.load(slide, in_8_bits, profile="standard") is None
