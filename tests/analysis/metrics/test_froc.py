from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics.froc import SlideHits, froc_2016, froc_curve, froc_stepped

# Computed once with both published scripts' algorithms: false positives, best hit of each lesion (0.0 missed), slides,
# score of the script of 2016, score of the newer one.
VECTORS = {
    "one lesion missed": ([0.8, 0.3], [0.9, 0.0], 2, 0.5, 0.5),
    "none missed: the first script drops the lowest score": ([0.8, 0.3], [0.9, 0.2], 2, 0.5, 0.75),
    "many false positives": (
        [0.95, 0.7, 0.65, 0.6, 0.5, 0.4, 0.35, 0.2, 0.1],
        [0.99, 0.66, 0.45, 0.15, 0.0],
        4,
        0.5667,
        0.5,
    ),
    "no false positive": ([], [0.9, 0.5, 0.0], 4, 0.6667, 0.6667),
}


@pytest.mark.parametrize("name", VECTORS)
def test_both_scripts_are_reproduced(name: str) -> None:
    false, lesions, slides, first, newer = VECTORS[name]
    hits = [SlideHits(tuple(false), tuple(lesions)), *[SlideHits((), ())] * (slides - 1)]
    assert froc_2016(hits) == pytest.approx(first, abs=5e-5)
    assert froc_stepped(hits) == pytest.approx(newer, abs=5e-5)


def test_slides_without_any_detection_count_in_the_rate() -> None:
    alone = froc_curve([SlideHits((0.9,), (0.8,))])
    among_four = froc_curve([SlideHits((0.9,), (0.8,)), *[SlideHits((), ())] * 3])
    assert alone.false_positives_per_slide[0] == 1.0
    assert among_four.false_positives_per_slide[0] == 0.25


@pytest.mark.parametrize("score", [froc_2016, froc_stepped])
def test_nothing_found_scores_nothing_and_no_lesion_has_no_score(
    score: Callable[[list[SlideHits]], float | None],
) -> None:
    assert score([SlideHits((), (0.0, 0.0)), SlideHits((), ())]) == 0.0
    assert score([SlideHits((0.7,), ())]) is None
    assert score([]) is None


RATES = (0.25, 0.5, 1, 2, 4, 8)
SCORES = st.sampled_from([0.1, 0.2, 0.4, 0.4, 0.5, 0.7, 0.9])
SLIDES = st.lists(
    st.tuples(st.lists(SCORES, max_size=5), st.lists(st.one_of(SCORES, st.just(0.0)), max_size=3)),
    min_size=1,
    max_size=6,
).filter(lambda slides: any(lesions for _, lesions in slides))


@settings(deadline=None)
@given(SLIDES)
def test_the_first_script_point_by_point(slides: list[tuple[list[float], list[float]]]) -> None:
    """The algorithm of 20 January 2016 written out: thresholds ascending without the lowest, then the origin."""
    false = [s for f, _ in slides for s in f]
    true = [s for _, lesions in slides for s in lesions]
    points = []
    for threshold in sorted(set(false + true))[1:]:
        points.append((sum(s >= threshold for s in false), sum(s >= threshold for s in true)))
    points.append((0, 0))
    rates = [f / len(slides) for f, _ in points][::-1]
    sensitivity = [t / len(true) for _, t in points][::-1]
    expected = float(np.mean(np.interp(RATES, rates, sensitivity)))
    assert froc_2016([SlideHits(tuple(f), tuple(le)) for f, le in slides]) == pytest.approx(expected)


@settings(deadline=None)
@given(SLIDES)
def test_the_newer_script_point_by_point(slides: list[tuple[list[float], list[float]]]) -> None:
    """Of the operating points the first, from the strictest on, that allows the false positives; else the last."""
    false = [s for f, _ in slides for s in f]
    true = [s for _, lesions in slides for s in lesions]
    points = [
        (sum(s >= t for s in false) / len(slides), sum(s >= t for s in true) / len(true))
        for t in sorted(set(false + true) - {0.0}, reverse=True)
    ]
    at = [next((sens for rate, sens in points if rate >= wanted), points[-1][1] if points else 0.0) for wanted in RATES]
    assert froc_stepped([SlideHits(tuple(f), tuple(le)) for f, le in slides]) == pytest.approx(float(np.mean(at)))
