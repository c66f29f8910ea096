import numpy as np
import pytest

from analysis.metrics.agreement import TwoByTwo, confusion, kappa
from analysis.metrics.staging import STAGES


def test_quadratic_kappa_of_the_camelyon17_worked_vector() -> None:
    reference = ["pN0", "pN0", "pN0(i+)", "pN1mi", "pN1", "pN2"]
    other = ["pN0", "pN1mi", "pN0", "pN1mi", "pN1", "pN1"]
    assert kappa(confusion(reference, other, labels=STAGES), weights="quadratic") == pytest.approx(0.735294, abs=1e-6)


def test_plain_kappa_of_a_published_worked_example() -> None:
    # Cohen's kappa, the 50-proposal example of the literature: 20 both yes, 15 both no, 5 and 10 apart -> 0.40
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)


def test_perfect_agreement_is_one_and_no_calls_give_none() -> None:
    assert kappa(np.diag([3, 4, 1, 2]), weights="quadratic") == 1.0
    assert kappa(np.zeros((2, 2), np.int64)) is None
    assert kappa(np.array([[5, 0], [0, 0]])) is None


def test_confusion_counts_rows_as_reference() -> None:
    counts = confusion(
        ["micro", "macro", "macro"], ["macro", "macro", "negative"], labels=("negative", "itc", "micro", "macro")
    )
    assert counts.sum() == 3
    assert (counts[2, 3], counts[3, 3], counts[3, 0]) == (1, 1, 1)


def test_confusion_refuses_unequal_lengths_and_unknown_labels() -> None:
    with pytest.raises(ValueError, match="1 against 2"):
        confusion(["a"], ["a", "b"], labels=("a", "b"))
    with pytest.raises(ValueError, match="unknown label 'c'"):
        confusion(["a"], ["c"], labels=("a", "b"))


def test_two_by_two_gives_shares_with_intervals() -> None:
    table = TwoByTwo.of([True, True, True, False, False], [True, True, False, False, True])
    assert (table.true_positive, table.false_negative, table.false_positive, table.true_negative) == (2, 1, 1, 1)
    assert table.sensitivity.value == pytest.approx(2 / 3)
    assert table.specificity.value == pytest.approx(1 / 2)
    assert table.agreement.value == pytest.approx(3 / 5)
    assert 0 < table.sensitivity.low < 2 / 3 < table.sensitivity.high < 1
