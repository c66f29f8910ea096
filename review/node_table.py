"""The node table of a case from one reader's own record, and the pN that follows from it by rule. Never filled in silently."""

from dataclasses import asdict, dataclass
from typing import Any

from analysis.metrics.staging import size_class, suggest_pn
from review.enums import CallStage, CallValue, Verdict
from review.models import Read
from review.state import newest_call, newest_decisions, present_marks
from slides.models import Slide

ORDER = (CallValue.NEGATIVE, CallValue.ITC, CallValue.MICRO, CallValue.MACRO)
RULE_WORDS = {
    "pN0": "no node with a metastasis or isolated tumour cells",
    "pN0(i+)": "isolated tumour cells only; such a node is examined, not positive",
    "pN1mi": "at least one micrometastasis, no macrometastasis",
    "pN1": "1 to 3 positive nodes, at least one with a macrometastasis",
    "pN2": "4 or more positive nodes, at least one with a macrometastasis",
}


@dataclass(frozen=True)
class NodeRow:
    """One lymph node. `result` is the reader's strongest final call over its slides; `largest_mm` what was measured."""

    node: str
    sentinel: bool | None
    slides: int
    not_read: int
    result: str | None
    positive: bool | None
    largest_mm: float | None
    note: str


@dataclass(frozen=True)
class NodeTable:
    rows: tuple[NodeRow, ...]
    examined: int
    positive: int
    suggestion: str | None
    rule: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}


def node_table(reads: list[Read], slides: list[Slide]) -> NodeTable:
    """From the reads of one reader on the `slides` of one case; slides without a read count as not read."""
    by_slide = {read.slide_id: read for read in reads}
    by_node: dict[str, list[tuple[Slide, Read | None]]] = {}
    for slide in slides:
        by_node.setdefault(slide.node.label if slide.node else "", []).append((slide, by_slide.get(slide.pk)))
    rows = tuple(_row(label, of_node) for label, of_node in sorted(by_node.items()))
    positive = sum(bool(row.positive) for row in rows if row.node)
    suggestion, rule = _suggest(rows)
    return NodeTable(rows, sum(bool(row.node) for row in rows), positive, suggestion, rule)


def largest_deposit_mm(read: Read) -> float | None:
    """The longest diameter among accepted lesions and own marks; None when nothing was measured."""
    accepted = [
        decision.lesion.longest_diameter_mm
        for decision in newest_decisions(read)
        if decision.verdict == Verdict.ACCEPTED
    ]
    drawn = [mark.longest_diameter_mm for mark in present_marks(read) if mark.longest_diameter_mm is not None]
    return max(accepted + drawn, default=None)


def _row(label: str, of_node: list[tuple[Slide, Read | None]]) -> NodeRow:
    reads = [read for _, read in of_node if read is not None]
    calls = [call.value if read and (call := newest_call(read, CallStage.FINAL)) else None for _, read in of_node]
    measured = [mm for read in reads if (mm := largest_deposit_mm(read)) is not None]
    largest = max(measured, default=None)
    result = _strongest(calls)
    node = of_node[0][0].node
    return NodeRow(
        node=label,
        sentinel=node.sentinel if node else None,
        slides=len(of_node),
        not_read=calls.count(None),
        result=result,
        positive=None if result is None else result in (CallValue.MICRO, CallValue.MACRO),
        largest_mm=largest,
        note=_note(label, result, largest, calls),
    )


def _strongest(calls: list[str | None]) -> str | None:
    """A finding counts whatever else is missing; a negative needs every slide to be called negative."""
    known = [call for call in calls if call in ORDER]
    found = max(known, key=lambda call: ORDER.index(CallValue(call)), default=None)
    if found not in (None, CallValue.NEGATIVE):
        return str(found)
    return None if len(known) < len(calls) else found and str(found)


def _note(label: str, result: str | None, largest: float | None, calls: list[str | None]) -> str:
    words = []
    if not label:
        words.append("no lymph node is named for these slides")
    if missing := calls.count(None):
        words.append(f"{missing} of {len(calls)} slides without a final call")
    if CallValue.CANNOT_ASSESS in calls:
        words.append("a slide could not be assessed")
    if largest is not None and result is not None and size_class(largest) != result:
        words.append(f"the call is {result}, the largest measured deposit would be {size_class(largest)}")
    return "; ".join(words)


def _suggest(rows: tuple[NodeRow, ...]) -> tuple[str | None, str]:
    if not rows:
        return None, "No suggestion: nothing was read."
    if any(not row.node for row in rows):
        return None, "No suggestion: a slide is not a node, and some slides name no lymph node."
    if missing := [row.node for row in rows if row.result is None]:
        return None, f"No suggestion: no result yet for {', '.join(missing)}."
    if unread := [row.node for row in rows if row.not_read]:
        return None, f"No suggestion: slides without a final call in {', '.join(unread)}."
    stage = suggest_pn([row.result for row in rows if row.result is not None])
    return stage, f"{stage}: {RULE_WORDS[stage]} (CAMELYON17 rules after AJCC 8). A suggestion, not a diagnosis."
