import pytest

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
def test_nothing_found_scores_nothing(score: object) -> None:
    assert callable(score)
    assert score([SlideHits((), (0.0, 0.0)), SlideHits((), ())]) == 0.0
