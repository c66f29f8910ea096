"""What a slide file is and what becomes of it, in the words of the operator's page and of `manage.py check_slide`."""

from slides.wsi.geometry import Level
from slides.wsi.properties import ScaleState, SlideProperties
from slides.wsi.quality import Quality
from slides.wsi.store_plan import StorePlan
from slides.wsi.tile_store import PASS_THROUGH

Facts = list[tuple[str, str]]
"""(what, words), in the order they are shown."""

SCALE_WORDS = {
    ScaleState.OK: "",
    ScaleState.MISSING: "The file does not say how large a pixel is: an operator must enter it before detection.",
    ScaleState.IMPLAUSIBLE: "The pixel size in the file cannot be right: an operator must correct it before detection.",
}


def file_facts(properties: SlideProperties, plan: StorePlan) -> Facts:
    """What the file says of itself, and what its tiles become."""
    facts = [
        ("Format", ", ".join(part for part in (properties.format, properties.scanner) if part)),
        ("Pixels", f"{properties.width:,} x {properties.height:,}"),
        ("Levels", _levels(properties.levels)),
        ("Scale in the file", _scale(properties)),
        ("Objective", f"{properties.objective:g}x" if properties.objective else "not said"),
        ("Colour profile", "in the file (ICC)" if properties.icc else "none"),
    ]
    if properties.focal_planes > 1:
        facts.append(("Focal planes", f"{properties.focal_planes}; one is shown"))
    facts.append(("Tiles", _tiles(plan)))
    facts.append(("Other images", ", ".join(properties.associated) or "none"))
    return facts


def tile_facts(*, corrupt: int, missing: int) -> Facts:
    """Of a slide whose every tile was decoded."""
    sparse = missing - corrupt
    facts = [("Damaged tiles", f"{corrupt:,}, shown hatched; they count as not read" if corrupt else "none")]
    if sparse > 0:
        facts.append(("Tiles not stored", f"{sparse:,}, shown hatched"))
    return facts


NEEDS_SCALE = "not measured without a scale: enter it, then prepare the slide again"


def quality_facts(quality: Quality) -> Facts:
    """Tissue, ink, and blur where it was measured."""
    facts = [
        ("Tissue", _area(quality.tissue_mm2, quality.tissue_fraction)),
        ("Pen ink", _area(quality.ink_mm2, quality.ink_share) if quality.ink_share else "none found"),
    ]
    if quality.blurred_share is not None and quality.measured_mm2 is not None:
        facts.append(
            (
                "Out of focus",
                f"{_percent(quality.blurred_share)} of the {quality.measured_mm2:,.1f} mm² that were measured",
            )
        )
    elif quality.tissue_mm2 is None:
        facts.append(("Out of focus", NEEDS_SCALE))
    return facts


def scale_words(scale_state: str) -> str:
    """What an operator must do about the file's scale; empty where it is right."""
    return SCALE_WORDS.get(ScaleState(scale_state), "")


def _levels(levels: tuple[Level, ...]) -> str:
    return f"{len(levels)}: " + ", ".join(f"1/{level.downsample:g}" for level in levels)


def _scale(properties: SlideProperties) -> str:
    if not properties.mpp_x or not properties.mpp_y:
        return "none"
    doubt = ", which cannot be right" if properties.scale_state == ScaleState.IMPLAUSIBLE else ""
    source = properties.mpp_source.removeprefix("file:")
    return f"{properties.mpp_x:.4f} x {properties.mpp_y:.4f} µm per pixel ({source}){doubt}"


def _tiles(plan: StorePlan) -> str:
    if plan.kind != PASS_THROUGH:
        return f"converted once, because {plan.reason}"
    return plan.reason + ("; overview levels are made beside the file" if plan.side_pyramid else "")


def _area(mm2: float | None, share: float) -> str:
    of_scan = f"{_percent(share)} of the scan"
    return of_scan if mm2 is None else f"{mm2:,.1f} mm² ({of_scan})"


def _percent(share: float) -> str:
    if 0 < share < 0.01:
        return "less than 1 %"
    return f"{100 * share:.0f} %"
