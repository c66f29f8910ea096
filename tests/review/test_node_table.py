"""The node table: what a node's result is, and when a pN is suggested at all."""

from typing import Any

import pytest

from analysis.metrics.staging import suggest_pn
from review.enums import CallValue
from review.models import Read
from review.node_table import node_table
from review.reading import lock_read, record_call, start_read
from slides.models import Slide
from tests import factories
from tests.review.conftest import Ward


def called(ward: Ward, node: str, value: str | None) -> tuple[Slide, Read | None]:
    slide = factories.make_slide(ward.case, node=node)
    if value is None:
        return slide, None
    read = start_read(user=ward.ann, slide=slide)
    keys: dict[str, Any] = {"user": ward.ann, "read_id": read.pk}
    record_call(**keys, value=CallValue.NEGATIVE, expected_version=0)
    lock_read(**keys, expected_version=1)
    record_call(**keys, value=CallValue(value), reason="folded", expected_version=2)
    return slide, read


def table(ward: Ward, *calls: tuple[str, str | None]) -> Any:
    made = [called(ward, node, value) for node, value in calls]
    return node_table([read for _, read in made if read], [slide for slide, _ in made])


@pytest.mark.parametrize(
    ("calls", "results", "stage"),
    [
        ([("A", "negative"), ("B", "negative")], ["negative", "negative"], "pN0"),
        ([("A", "negative"), ("B", "itc")], ["negative", "itc"], "pN0(i+)"),
        ([("A", "micro"), ("A", "negative")], ["micro"], "pN1mi"),
        ([("A", "micro"), ("A", "macro"), ("B", "itc")], ["macro", "itc"], "pN1"),
        ([(name, "macro") for name in "ABCD"], ["macro"] * 4, "pN2"),
        # nothing is called negative that was not read
        ([("A", "negative"), ("A", None)], [None], None),
        ([("A", "negative"), ("A", "cannot_assess")], [None], None),
        ([("A", "macro"), ("A", None)], ["macro"], None),
        ([("", "macro")], ["macro"], None),  # a slide is not a node
    ],
)
def test_results_and_suggestion(
    ward: Ward, calls: list[tuple[str, str | None]], results: list[str | None], stage: str | None
) -> None:
    made = table(ward, *calls)
    assert [row.result for row in made.rows] == results
    assert made.suggestion == stage
    assert made.rule.startswith(stage or "No suggestion")
    if stage:
        assert stage == suggest_pn([str(result) for result in results])


def test_a_node_with_itc_only_is_examined_but_not_positive(ward: Ward) -> None:
    made = table(ward, ("A", "itc"), ("B", "micro"))
    assert (made.examined, made.positive) == (2, 1)
