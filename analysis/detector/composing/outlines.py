"""Real lesion outlines as masks of a wanted size, and smooth random outlines of nodes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CAMELYON_LEVEL0_MPP = 0.243
_MIN_POINTS = 8


@dataclass(frozen=True)
class LesionOutline:
    """One outline with its holes, in micrometres from its own upper left corner."""

    ring: NDArray[np.float32]  # (n, 2) x, y
    holes: tuple[NDArray[np.float32], ...]
    slide: str

    @property
    def longest_um(self) -> float:
        """Longest side of the bounding box."""
        return float(np.ptp(self.ring, axis=0).max())


def load_outlines(path: Path, *, split: str) -> list[LesionOutline]:
    """All tumour outlines of one split (`train` or `valid`), each with the holes that lie inside it."""
    z = np.load(path, allow_pickle=False)
    vertices, offsets, slide_index, sign = z["vertices"], z["offsets"], z["slide_index"], z["sign"]
    wanted = np.flatnonzero(z["split"] == split)
    outlines = []
    for slide in wanted:
        members = np.flatnonzero(slide_index == slide)
        rings = [(int(sign[j]), vertices[offsets[j] : offsets[j + 1]].astype(np.float32)) for j in members]
        holes = [r for s, r in rings if s < 0 and len(r) >= _MIN_POINTS]
        for s, ring in rings:
            if s > 0 and len(ring) >= _MIN_POINTS:
                outlines.append(_outline(ring, holes, slide=str(z["slides"][slide])))
    return outlines


def _outline(ring: NDArray[np.float32], holes: list[NDArray[np.float32]], *, slide: str) -> LesionOutline:
    low, high = ring.min(axis=0), ring.max(axis=0)
    own = [h for h in holes if (h.min(axis=0) >= low).all() and (h.max(axis=0) <= high).all()]
    scaled = [(points - low) * CAMELYON_LEVEL0_MPP for points in [ring, *own]]
    return LesionOutline(ring=scaled[0], holes=tuple(scaled[1:]), slide=slide)


def lesion_mask(
    outline: LesionOutline, *, longest_um: float, mpp: float, rng: np.random.Generator, holes: bool = True
) -> NDArray[np.bool_]:
    """The outline scaled to `longest_um` and turned at random, cropped to itself, at `mpp`."""
    scale = longest_um / max(outline.longest_um, 1e-6) / mpp
    angle = float(rng.uniform(0, 2 * np.pi))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    ring = outline.ring @ turn.T
    fit = scale * outline.longest_um / max(float(np.ptp(ring, axis=0).max()), 1e-6)
    low = ring.min(axis=0) * fit
    size = np.ceil(np.ptp(ring, axis=0) * fit).astype(int) + 3
    image = Image.new("1", (int(size[0]), int(size[1])))
    draw = ImageDraw.Draw(image)
    draw.polygon([tuple(p) for p in (ring * fit - low + 1).tolist()], fill=1)
    for hole in outline.holes if holes else ():
        draw.polygon([tuple(p) for p in (hole @ turn.T * fit - low + 1).tolist()], fill=0)
    return np.asarray(image, dtype=bool)


def smooth_blob(*, height: int, width: int, roughness: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A smooth closed curve that fills most of (height, width), as a node's outline does."""
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = np.ones_like(angle)
    for order in range(2, 7):
        radius += roughness / order * rng.normal() * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    radius /= radius.max()
    x = (width - 2) / 2 * (1 + radius * np.cos(angle))
    y = (height - 2) / 2 * (1 + radius * np.sin(angle))
    image = Image.new("1", (width, height))
    ImageDraw.Draw(image).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=1)
    return np.asarray(image, dtype=bool)
