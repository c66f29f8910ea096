"""The figures of a model card as lines for people: names in words, three digits, intervals as ranges."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Figure(NamedTuple):
    measured_on: str
    name: str
    value: str


def figures_of(measured_on: str, figures: Any, name: str = "") -> Iterator[Figure]:
    """Flattens nested figures: {"auc_by_stain": {"brown": 0.949}} gives "auc by stain, brown". Identities are left out."""
    if isinstance(figures, dict):
        for key, value in figures.items():
            if key not in {"model", "file"}:
                words = str(key).replace("_", " ")
                yield from figures_of(measured_on, value, f"{name}, {words}" if name else words)
    else:
        yield Figure(measured_on, name, _in_words(figures))


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(_in_words(one) for one in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
