"""Size class of a metastasis, and the pN stage of a patient by the CAMELYON17 rules or by the AJCC.

Sources: AJCC 8th edition, breast; CAMELYON17 evaluation page. Macro-metastasis: > 2.0 mm. Micro: > 0.2 mm and <= 2.0 mm
(or more than 200 cells). Isolated tumour cells (ITC): <= 0.2 mm and at most 200 cells; a node with ITC only is not positive.
"""

from collections.abc import Mapping, Sequence

from analysis.metrics.agreement import confusion, kappa

MICRO_OVER_MM = 0.2
MACRO_OVER_MM = 2.0
CLASSES = ("negative", "itc", "micro", "macro")
STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
AJCC_STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1a", "pN2a", "pN3a")


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


def ajcc_pn(longest_mm: Sequence[float | None], *, cells: Sequence[int | None] | None = None) -> str:
    """pN of axillary nodes by the AJCC, 8th edition, from the longest metastasis of each node (None: none found).

    `cells`: for each node the tumour cells of its largest focus, where counted. Nodes with isolated tumour cells only do
    not count; micrometastases do once there is a macrometastasis. Internal mammary and supraclavicular nodes, which make
    the b and c categories, are not known here.
    """
    counted = [None] * len(longest_mm) if cells is None else list(cells)
    if len(counted) != len(longest_mm):
        raise ValueError(f"{len(longest_mm)} nodes but {len(counted)} cell counts")
    nodes = ["negative" if mm is None else size_class(mm, cells=n) for mm, n in zip(longest_mm, counted, strict=True)]
    positive = sum(node in ("micro", "macro") for node in nodes)
    if "macro" in nodes:
        return "pN1a" if positive <= 3 else "pN2a" if positive <= 9 else "pN3a"
    if positive:
        return "pN1mi"
    return "pN0(i+)" if "itc" in nodes else "pN0"


def camelyon17_kappa(reference: Mapping[str, str], submitted: Mapping[str, str]) -> float | None:
    """Quadratic weighted kappa over patients, as CAMELYON17 scores it: rows of slides are left out, patients end with .zip.

    Case does not matter. Raises ValueError for a patient without a submitted stage or with an unknown one.
    """
    known = {stage.lower(): stage for stage in STAGES}
    given = {name.lower(): stage for name, stage in submitted.items()}
    pairs = []
    for name, stage in reference.items():
        if not name.lower().endswith(".zip"):
            continue
        if name.lower() not in given:
            raise ValueError(f"no stage was submitted for {name}")
        pairs.append((_stage(stage, known), _stage(given[name.lower()], known)))
    counts = confusion([a for a, _ in pairs], [b for _, b in pairs], labels=STAGES)
    return kappa(counts, weights="quadratic")


def _stage(word: str, known: Mapping[str, str]) -> str:
    stage = known.get(word.strip().lower())
    if stage is None:
        raise ValueError(f"unknown stage {word!r}; known: {', '.join(STAGES)}")
    return stage
