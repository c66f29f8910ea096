"""What happens to real slides on the way to the scanner: pen ink, folded tissue, regions out of focus.

Ink keeps away from lesions, because tissue under ink is by design not read; folds and blur fall where they fall.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from analysis.detector.composing.composed_slide import ComposedSlide
from analysis.detector.composing.edges import lay, soft_edge
from analysis.detector.composing.outlines import smooth_blob
from analysis.detector.composing.tissue_pool import from_optical_density, optical_density

INK_RGB = ((38, 58, 168), (24, 122, 84), (26, 26, 30))
_INK_FROM_LESION_PX = 120
_TRIES = 40


@dataclass(frozen=True)
class PlacedArtefact:
    kind: str
    """ink, fold or blur."""
    bbox: tuple[int, int, int, int]
    """left, top, right, bottom in px of the slide."""
    note: str


def lay_fold(slide: ComposedSlide, rng: np.random.Generator) -> PlacedArtefact | None:
    """A band of a node 60-180 um wide where tissue lies double: the densities of both layers add up."""
    length, width = rng.uniform(700, 2200) / slide.mpp, rng.uniform(60, 180) / slide.mpp
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.12, 0.12) * length
    side = int(length + 2 * width)
    ys, xs = np.mgrid[:side, :side] - side / 2
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    across -= bend * (1 - (2 * along / length) ** 2)
    taper = np.sqrt(np.clip(1 - (2 * along / length) ** 2, 0, 1))
    band = np.abs(across) < width / 2 * taper

    def fold(target: NDArray[np.uint8], weight: NDArray[np.float32]) -> None:
        shift = int(rng.integers(40, 120))
        density = optical_density(target)
        second = np.roll(density, (shift, -shift), axis=(0, 1))
        lay(target, from_optical_density(density + 0.9 * second), weight)

    return _on_a_node(slide, "fold", band, fold, rng, soft_px=2.5, note=f"{width * slide.mpp:.0f} um wide")


def lay_blur(slide: ComposedSlide, rng: np.random.Generator) -> PlacedArtefact | None:
    """A region of 0.4-1.6 mm out of focus by a sigma of 2-5 px."""
    height, width = (int(v / slide.mpp) for v in rng.uniform(400, 1600, 2))
    shape = smooth_blob(height=height, width=width, roughness=0.3, rng=rng)
    sigma = float(rng.uniform(2.0, 5.0))

    def blur(target: NDArray[np.uint8], weight: NDArray[np.float32]) -> None:
        soft = gaussian_filter(target.astype(np.float32), (sigma, sigma, 0))
        lay(target, np.clip(soft + 0.5, 0, 255).astype(np.uint8), weight)

    note = f"sigma {sigma * slide.mpp:.1f} um"
    return _on_a_node(slide, "blur", shape, blur, rng, soft_px=6.0, note=note)


def lay_ink(slide: ComposedSlide, rng: np.random.Generator) -> PlacedArtefact | None:
    """A pen stroke 150-400 um wide that crosses the edge of a node; None when every try came near a lesion."""
    colour = np.array(INK_RGB[int(rng.integers(len(INK_RGB)))], np.float32)
    cover = float(rng.uniform(0.8, 0.95))
    for _ in range(_TRIES):
        node = slide.nodes[int(rng.integers(len(slide.nodes)))]
        coarse = node[::16, ::16]
        ys, xs = np.nonzero(coarse & ~binary_erosion(coarse))
        if not len(ys):
            continue
        at = int(rng.integers(len(ys)))
        stroke, top, left = _stroke(slide, float(xs[at] * 16), float(ys[at] * 16), rng)
        if not stroke.any() or _near_lesion(slide, stroke, top, left):
            continue
        weight = soft_edge(stroke, rng=rng) * cover
        target = slide.rgb[top : top + stroke.shape[0], left : left + stroke.shape[1]]
        grain = gaussian_filter(rng.normal(size=stroke.shape).astype(np.float32), 6.0) * 25
        filling = np.clip(colour + grain[..., None], 0, 255).astype(np.uint8)
        lay(target, filling, weight)
        slide.tags.add(("ink",), stroke, top=top, left=left)
        box = (left, top, left + stroke.shape[1], top + stroke.shape[0])
        return PlacedArtefact("ink", box, f"rgb {colour.astype(int).tolist()}")
    return None


def _stroke(slide: ComposedSlide, x: float, y: float, rng: np.random.Generator) -> tuple[NDArray[np.bool_], int, int]:
    """A bent stroke whose middle is about (x, y): mask with top and left, cut to the canvas."""
    n, step = 24, rng.uniform(800, 3000) / slide.mpp / 24
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, n))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * step, axis=0)
    points += np.array([x, y]) - points[n // 2]
    width = int(rng.uniform(150, 400) / slide.mpp)
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - width, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + width, np.array(slide.tumour.shape)[::-1])
    if (high <= low).any():
        return np.zeros((0, 0), bool), 0, 0
    image = Image.new("1", (int(high[0] - low[0]), int(high[1] - low[1])))
    draw = ImageDraw.Draw(image)
    local = [tuple(p) for p in (points - low).tolist()]
    draw.line(local, fill=1, width=width, joint="curve")
    for px, py in (local[0], local[-1]):
        draw.ellipse((px - width / 2, py - width / 2, px + width / 2, py + width / 2), fill=1)
    return np.asarray(image, dtype=bool), int(low[1]), int(low[0])


def _near_lesion(slide: ComposedSlide, stroke: NDArray[np.bool_], top: int, left: int) -> bool:
    far = _INK_FROM_LESION_PX
    y0, x0 = max(top - far, 0), max(left - far, 0)
    around = slide.tumour[y0 : top + stroke.shape[0] + far, x0 : left + stroke.shape[1] + far][::8, ::8]
    if not around.any():
        return False
    wide = np.zeros(around.shape, bool)
    ys, xs = np.nonzero(stroke[::8, ::8])
    rows, cols = ys + (top - y0) // 8, xs + (left - x0) // 8
    inside = (rows < len(wide)) & (cols < len(wide[0]))
    wide[rows[inside], cols[inside]] = True
    return bool((binary_dilation(wide, iterations=far // 8) & around).any())


def _on_a_node(
    slide: ComposedSlide,
    kind: str,
    shape: NDArray[np.bool_],
    change: Callable[[NDArray[np.uint8], NDArray[np.float32]], None],
    rng: np.random.Generator,
    *,
    soft_px: float,
    note: str,
) -> PlacedArtefact | None:
    """Change the node under `shape`, with its middle on a random place of the node."""
    node = slide.nodes[int(rng.integers(len(slide.nodes)))]
    ys, xs = np.nonzero(node[::16, ::16])
    if not len(ys):
        return None
    at = int(rng.integers(len(ys)))
    top, left = int(ys[at]) * 16 - shape.shape[0] // 2, int(xs[at]) * 16 - shape.shape[1] // 2
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + shape.shape[0], node.shape[0]), min(left + shape.shape[1], node.shape[1])
    mask = shape[y0 - top : y1 - top, x0 - left : x1 - left] & node[y0:y1, x0:x1]
    if not mask.any():
        return None
    change(slide.rgb[y0:y1, x0:x1], soft_edge(mask, rng=rng, width_px=soft_px))
    slide.tags.add((kind,), mask, top=y0, left=x0)
    return PlacedArtefact(kind, (x0, y0, x1, y1), note)
