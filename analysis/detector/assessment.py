"""Whether a slide was read well enough to be judged. What was not seen sharply is never negative."""

from analysis.detector.detection import TissueSummary

MOST_FAILED_COMPLETE = 0.001
"""Above this share of unread tissue a result is `incomplete`."""
MOST_FAILED_ASSESSED = 0.2
"""Above this one no score is given at all."""
MOST_BLURRED_COMPLETE = 0.05
MOST_BLURRED_ASSESSED = 0.3
MIN_TISSUE_MM2 = 0.05
MOST_TISSUE_SHARE = 0.98
"""A whole slide shows glass somewhere: a tissue mask beyond this has failed ..."""
WHOLE_SLIDE_MM2 = 100.0
"""... if the image is as large as a whole slide; a cut-out may well be all tissue."""


def judge(tissue: TissueSummary, *, blurred: float, tissue_share: float, slide_mm2: float) -> tuple[str, str]:
    """Status and its reason in words. Shares are 0..1: `blurred` of the measured tissue, `tissue_share` of the image."""
    if tissue.mm2 < MIN_TISSUE_MM2:
        return "cannot_assess", "No tissue was found on this slide, so there is nothing to judge."
    if tissue_share > MOST_TISSUE_SHARE and slide_mm2 >= WHOLE_SLIDE_MM2:
        return "cannot_assess", (
            f"Tissue could not be told from glass: {tissue_share:.0%} of the slide would be tissue. Scan the slide again."
        )
    if tissue.failed > MOST_FAILED_ASSESSED:
        return "cannot_assess", f"{tissue.failed:.0%} of the tissue could not be read; the slide cannot be judged."
    if blurred > MOST_BLURRED_ASSESSED:
        return "cannot_assess", f"{blurred:.0%} of the tissue is out of focus. Scan the slide again."
    reasons = []
    if tissue.failed > MOST_FAILED_COMPLETE:
        reasons.append(f"{tissue.failed:.1%} of the tissue could not be read and was not judged.")
    if blurred > MOST_BLURRED_COMPLETE:
        reasons.append(f"{blurred:.0%} of the tissue is out of focus; what it holds may have been missed.")
    return ("incomplete" if reasons else "complete"), " ".join(reasons)
