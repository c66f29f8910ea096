"""What an operator wants to know of a slide before a person reads it: tissue, pen ink, and what is out of focus."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Quality:
    """Areas in mm2 and shares 0..1; None where there is no scale, or where focus was not measured.

    `ink_share` is of the whole scan, `blurred_share` of the tissue whose focus could be measured (`measured_mm2`).
    """

    tissue_mm2: float | None
    tissue_fraction: float
    ink_mm2: float | None
    ink_share: float
    blurred_share: float | None = None
    measured_mm2: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Quality":
        """Raises ValueError, KeyError or TypeError for what cannot be."""
        quality = cls(
            tissue_mm2=_number(said["tissue_mm2"]),
            tissue_fraction=float(said["tissue_fraction"]),
            ink_mm2=_number(said["ink_mm2"]),
            ink_share=float(said["ink_share"]),
            blurred_share=_number(said["blurred_share"]),
            measured_mm2=_number(said["measured_mm2"]),
        )
        shares = (quality.tissue_fraction, quality.ink_share, quality.blurred_share or 0.0)
        areas = (quality.tissue_mm2, quality.ink_mm2, quality.measured_mm2)
        if not all(0 <= share <= 1 for share in shares) or not all(0 <= (area or 0.0) < 1e6 for area in areas):
            raise ValueError("an impossible share or area of tissue, ink or blur")
        return quality


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
