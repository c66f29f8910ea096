"""Size class of a metastasis, and the pN stage of a patient by the CAMELYON17 rules.

Sources: AJCC 8th edition, breast; CAMELYON17 evaluation page. Macro-metastasis: > 2.0 mm. Micro: > 0.2 mm and <= 2.0 mm
(or more than 200 cells). Isolated tumour cells (ITC): <= 0.2 mm and at most 200 cells; a node with ITC only is not positive.
"""

from collections.abc import Sequence

MICRO_OVER_MM = 0.2
MACRO_OVER_MM = 2.0
CLASSES = ("negative", "itc", "micro", "macro")
STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")


def size_class(longest_mm: float, *, cells: int | None = None) -> str:
    """`itc`, `micro` or `macro`; raises ValueError for a negative length. `cells` lifts a small focus of > 200 cells to micro."""
    if not longest_mm >= 0:
        raise ValueError(f"a length cannot be {longest_mm}")
    if longest_mm > MACRO_OVER_MM:
        return "macro"
    if longest_mm > MICRO_OVER_MM or (cells is not None and cells > 200):
        return "micro"
    return "itc"


def suggest_pn(nodes: Sequence[str]) -> str:
    """The stage from one class per node (`negative`, `itc`, `micro`, `macro`); raises ValueError for other words.

    Ten and more positive nodes would be pN3, which the CAMELYON17 rules do not know: pN2 is then the answer too.
    """
    unknown = sorted(set(nodes) - set(CLASSES))
    if unknown:
        raise ValueError(f"unknown node class {unknown[0]!r}; known: {', '.join(CLASSES)}")
    positive = sum(node in ("micro", "macro") for node in nodes)
    if "macro" in nodes:
        return "pN1" if positive <= 3 else "pN2"
    if positive:
        return "pN1mi"
    return "pN0(i+)" if "itc" in nodes else "pN0"
