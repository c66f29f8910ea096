import pytest

from analysis.metrics.staging import size_class, suggest_pn


@pytest.mark.parametrize(
    ("longest_mm", "expected"),
    [(0.0, "itc"), (0.2, "itc"), (0.2001, "micro"), (2.0, "micro"), (2.0001, "macro"), (40.0, "macro")],
)
def test_size_class_changes_just_above_its_limits(longest_mm: float, expected: str) -> None:
    assert size_class(longest_mm) == expected


def test_more_than_200_cells_are_a_micrometastasis_however_small() -> None:
    assert size_class(0.15, cells=200) == "itc"
    assert size_class(0.15, cells=201) == "micro"


@pytest.mark.parametrize("length", [-0.1, float("nan")])
def test_a_length_that_is_none_is_refused(length: float) -> None:
    with pytest.raises(ValueError, match="a length cannot be"):
        size_class(length)


@pytest.mark.parametrize(
    ("nodes", "stage"),
    [
        ([], "pN0"),
        (["negative"] * 5, "pN0"),
        (["itc", "negative"], "pN0(i+)"),
        (["micro", "itc"], "pN1mi"),
        (["micro"] * 5, "pN1mi"),
        (["macro"], "pN1"),
        (["macro", "micro", "micro"], "pN1"),
        (["macro", "micro", "micro", "micro"], "pN2"),
        (["macro", "itc", "itc", "itc", "itc"], "pN1"),
    ],
)
def test_stage_follows_the_camelyon17_rules(nodes: list[str], stage: str) -> None:
    assert suggest_pn(nodes) == stage


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown node class 'big'"):
        suggest_pn(["big"])
