"""The agreement page as CSV: point decimals, UTC ISO 8601, no cell that a spreadsheet would run."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC

from audit_trail.export import safe_cell
from review.reporting.agreement import Discordance, Pair, TwoByTwo

PAIR_COLUMNS = (
    *("case", "slide", "slide_id", "stage", "reference_call", "reference_role", "reference_protocol", "reader"),
    *("ai_found", "ai_size_class", "ai_score", "ai_longest_mm", "ai_not_counted_because", "model", "weights_sha256"),
    *("run_id", "locked_at", "ai_status", "ai_slide_probability", "ai_triage", "calibration"),
)


def pairs_csv(found: Iterable[Pair]) -> bytes:
    return _csv(PAIR_COLUMNS, [_pair_cells(pair) for pair in found])


def discordances_csv(found: Iterable[Discordance]) -> bytes:
    rows = [[item.words, f"{item.weight:.6g}", *_pair_cells(item.pair)] for item in found]
    return _csv(("discordance", "weight", *PAIR_COLUMNS), rows)


def figures_csv(tables: Iterable[TwoByTwo]) -> bytes:
    rows: list[list[str]] = []
    for table in tables:
        for name, count in (
            ("both found tumour", table.both),
            ("AI only", table.ai_only),
            ("reader only", table.reader_only),
            ("neither", table.neither),
            ("left out", table.left_out),
        ):
            rows.append([table.stage, name, str(count), "", "", "", "", table.reference])
        for figure in table.figures:
            values = [_number(figure.value), _number(figure.low), _number(figure.high)]
            rows.append([table.stage, figure.name, str(figure.k), str(figure.n), *values, table.reference])
    return _csv(("stage", "figure", "k", "n", "value", "wilson_low", "wilson_high", "reference"), rows)


def _pair_cells(pair: Pair) -> list[str]:
    run = pair.ai.run
    return [
        pair.slide.case.accession,
        pair.slide.display_name,
        str(pair.slide.pk),
        pair.stage,
        pair.call,
        pair.read.assignment.role,
        pair.read.protocol,
        str(pair.read.reader),
        "" if pair.ai.found is None else str(pair.ai.found).lower(),
        pair.ai.size_class,
        _number(pair.ai.score),
        _number(pair.ai.longest_mm),
        pair.ai.why,
        str(run.model_version),
        run.model_version.sha256,
        str(run.pk),
        pair.read.locked_at.astimezone(UTC).isoformat() if pair.read.locked_at else "",
        run.status,
        _number(run.slide_probability),
        run.triage,
        run.calibration,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue().encode()
