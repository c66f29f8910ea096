import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from analysis.metrics.staging import STAGES, ajcc_pn, camelyon17_kappa, size_class, suggest_pn


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


@pytest.mark.parametrize(
    ("longest_mm", "stage"),
    [
        ([], "pN0"),
        ([None, None], "pN0"),
        ([0.15, None], "pN0(i+)"),
        ([0.2], "pN0(i+)"),
        ([0.21], "pN1mi"),
        ([2.0] * 5, "pN1mi"),
        ([2.1], "pN1a"),
        ([2.1, 1.0, 0.5], "pN1a"),
        ([2.1, 1.0, 0.5, 0.1, 0.1], "pN1a"),
        ([2.1, 1.0, 0.5, 0.3], "pN2a"),
        ([5.0] * 9, "pN2a"),
        ([5.0] * 10, "pN3a"),
        ([5.0] + [0.5] * 9, "pN3a"),
    ],
)
def test_the_ajcc_stage_follows_sizes_and_counts(longest_mm: list[float | None], stage: str) -> None:
    """AJCC cancer staging manual, 8th edition, breast: pN1a 1-3, pN2a 4-9, pN3a 10 and more nodes, one above 2.0 mm."""
    assert ajcc_pn(longest_mm) == stage


def test_cells_lift_a_small_focus() -> None:
    assert ajcc_pn([0.1, None], cells=[201, None]) == "pN1mi"
    with pytest.raises(ValueError, match="2 nodes but 1 cell counts"):
        ajcc_pn([0.1, None], cells=[201])


def test_the_patients_of_camelyon17_alone_are_scored() -> None:
    reference = {
        "patient_000.zip": "pN0",
        "patient_001.zip": "pN0",
        "patient_002.zip": "pN0(i+)",
        "patient_003.zip": "pN1mi",
        "patient_004.zip": "pN1",
        "patient_005.zip": "pN2",
        "patient_005_node_0.tif": "macro",
    }
    given_stages = ["pN0", "PN1MI", "pn0", "pN1mi", "pN1", "pN1"]
    submitted = {f"Patient_00{i}.ZIP": stage for i, stage in enumerate(given_stages)}
    assert camelyon17_kappa(reference, submitted) == pytest.approx(0.735294, abs=1e-6)
    del submitted["Patient_005.ZIP"]
    with pytest.raises(ValueError, match=r"no stage was submitted for patient_005\.zip"):
        camelyon17_kappa(reference, submitted)
    with pytest.raises(ValueError, match="unknown stage 'pN9'"):
        camelyon17_kappa({"a.zip": "pN0"}, {"a.zip": "pN9"})


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STAGES), st.sampled_from(STAGES)), min_size=1, max_size=30))
def test_kappa_is_that_of_the_official_script(pairs: list[tuple[str, str]]) -> None:
    first = {f"p{i}.zip": a for i, (a, _) in enumerate(pairs)}
    second = {f"p{i}.zip": b for i, (_, b) in enumerate(pairs)}
    found = camelyon17_kappa(first, second)
    if len(set(first.values()) | set(second.values())) == 1:
        assert found is None  # chance alone explains all
        return
    expected = cohen_kappa_score(list(first.values()), list(second.values()), labels=list(STAGES), weights="quadratic")
    assert found == pytest.approx(expected)
