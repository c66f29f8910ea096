"""The figures of a model card as lines for people: names in words, three digits, intervals as ranges."""

from collections.abc import Iterator
from typing import Any, NamedTuple

# Key of the figure (a dot leads inside), words, key of the interval.
MAIN = (
    ("auc", "AUC", "auc_interval"),
    ("n", "patches", ""),
    ("positive", "patches with tumour", ""),
    ("slide_auc", "slide AUC", "slide_auc_interval"),
    ("slide_calls.sensitivity", "slide sensitivity", "slide_calls.sensitivity_interval"),
    ("slide_calls.specificity", "slide specificity", "slide_calls.specificity_interval"),
    ("froc_2016", "FROC (2016)", "froc_2016_interval"),
    ("froc_stepped", "FROC (stepped)", "froc_stepped_interval"),
    ("lesions_found", "lesions found", ""),
    ("lesions", "lesions", ""),
    ("false_positives_per_slide", "false lesions a slide", ""),
    ("dice", "Dice", "dice_interval"),
    ("slides", "slides", ""),
    ("tumour_slides", "slides with tumour", ""),
    ("not_assessed", "slides that could not be assessed", ""),
)

IDENTITIES = {"model", "file", "version", "sha256"}


class Figure(NamedTuple):
    measured_on: str
    name: str
    value: str


def figures_of(measured_on: str, figures: Any, name: str = "") -> Iterator[Figure]:
    """Flattens nested figures: {"auc_by_stain": {"brown": 0.949}} gives "auc by stain, brown". What stands in a list is called by its
    version or else its number. Identities are left out. A confusion table has a line for each true class that there was, where its
    labels stand beside it."""
    if isinstance(figures, dict):
        for key, value in figures.items():
            words = str(key).replace("_", " ")
            inside = f"{name}, {words}" if name else words
            if (labels := _labels_of(figures, key)) is not None:
                for true, row in zip(labels, value, strict=True):
                    if any(row):
                        as_called = ", ".join(f"{n} as {label}" for label, n in zip(labels, row, strict=True) if n)
                        yield Figure(measured_on, f"{inside}, {true} called", as_called)
            elif key not in IDENTITIES and not _labels_of(figures, key.removesuffix("labels") + "confusion"):
                yield from figures_of(measured_on, value, inside)
    elif isinstance(figures, list) and any(isinstance(one, dict | list) for one in figures):
        for number, one in enumerate(figures, start=1):
            called = one.get("version") if isinstance(one, dict) else None
            yield from figures_of(measured_on, one, f"{name}, {called or number}")
    else:
        yield Figure(measured_on, name, _in_words(figures))


def _labels_of(figures: dict[str, Any], key: str) -> list[str] | None:
    """The labels of the confusion table `key`: "size_class_labels" for "size_class_confusion". None for any other figure."""
    if not key.endswith("confusion"):
        return None
    table, labels = figures.get(key), figures.get(key.removesuffix("confusion") + "labels")
    if not isinstance(table, list) or not isinstance(labels, list) or len(table) != len(labels):
        return None
    return labels if all(isinstance(row, list) and len(row) == len(labels) for row in table) else None


def in_words(name: str, figures: dict[str, Any]) -> str:
    """What a card calls a measurement: "slides_fast" on composed slides is "slides, fast (composed)"."""
    words = name.replace("_", ", ", 1).replace("_", " ") if name.startswith("slides_") else name.replace("_", " ")
    return f"{words} (composed)" if figures.get("composed") else words


def main_figures(measured_on: str, figures: dict[str, Any]) -> list[Figure]:
    """Those of MAIN that were measured, each with its interval where there is one."""
    lines = []
    for key, name, interval in MAIN:
        if (found := _inside(figures, key)) is not None:
            value = _in_words(found)
            low_high = _inside(figures, interval)
            lines.append(Figure(measured_on, name, f"{value} ({_in_words(low_high)})" if low_high else value))
    return lines


def _inside(figures: Any, key: str) -> Any:
    for part in key.split("."):
        figures = figures.get(part) if isinstance(figures, dict) else None
    return figures


def _in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "not known", True: "yes", False: "no"}[value]
    if not isinstance(value, list | tuple):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    words = [_in_words(one) for one in value]
    if len(value) == 3 and all(isinstance(one, float) for one in value) and value[1] <= value[0] <= value[2]:
        return f"{words[0]} ({words[1]} to {words[2]})"  # with its interval
    return " to ".join(words) if len(value) == 2 else ", ".join(words)
