"""Training regions cut from annotated slides: lesions (each as often as another, small ones twice), their edges, normal tissue.

Each slide has a fixed list of sites. A site's field is read once, larger than a region, and kept on disk; a region is a
scaled, turned and shifted cut of a field, made from the random state alone, so that a resumed run draws what an unbroken
one would have drawn.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, label

from analysis.detector.annotation_masks import MaskFile
from analysis.detector.annotations import Annotation, paint, read_outlines
from analysis.detector.lesions import longest_diameter_um
from analysis.detector.pixel_source import PixelSource
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.training.regions import Region
from analysis.detector.training.slide_folders import AnnotatedSlide, SlideFolderError
from analysis.detector.turning import turn
from slides.wsi.errors import WsiError
from slides.wsi.focus import LEAST_STAINED, STAINED_GREEN, cell_sharpness, floor_at
from slides.wsi.tissue import tissue_mask

RING_UM = 37.5
"""Outside a contour nothing is learnt so near: within this CAMELYON takes cells for the lesion's own."""
FINE_MPP = 4.0
"""Spacing of the map in which a slide's lesions are counted: an ITC of 40 um is 10 cells long."""
SMALL_UM = 500.0
"""Lesions up to this size are drawn twice as often as others."""
FAR_UM = 300.0
"""Normal sites keep this distance from tumour."""
SCALE = (0.85, 1.2)
FIELD_ROOM = 1.45
"""A field's side is that of a region times this: room for scaling and shifting."""
SHARES = {"lesion": 0.4, "edge": 0.15, "normal": 0.25, "false": 0.2}
SITES_PER_LESION = (4, 48)
EDGE_SITES_PER_LESION = 8
NORMAL_SITES = (24, 400)
OPEN_SLIDES = 4
BLUR_BLOCK_PX = 64

Site = tuple[int, int]
"""Centre of a field (x, y), level-0 px."""


@dataclass(frozen=True)
class Sites:
    """Where a slide is looked at; centres in level-0 px."""

    lesions: tuple[tuple[Site, ...], ...]
    edges: tuple[tuple[Site, ...], ...]
    small: tuple[bool, ...]
    normal: tuple[Site, ...]
    tissue: tuple[Site, ...]
    """A grid over all normal tissue, for looking for false finds."""
    tissue_mm2: float


@dataclass(frozen=True)
class Field:
    """A square of a slide at one spacing with what is known of it."""

    rgb: NDArray[np.uint8]  # (n, n, 3)
    instance: NDArray[np.int16]  # (n, n) 0 = no tumour, k = lesion k of this field
    ignore: NDArray[np.bool_]  # (n, n)


class _Truth:
    """The tumour of one slide in windows, from outlines or a mask."""

    def __init__(self, slide: AnnotatedSlide, *, width: int, height: int) -> None:
        self.mask: MaskFile | None = None
        self.outlines: list[Annotation] = []
        if slide.annotation is None:
            return
        if slide.mask_tumour_value:
            self.mask = MaskFile(slide.annotation, width, height, slide.mask_tumour_value)
        else:
            self.outlines = read_outlines(slide.annotation)

    def window(
        self, *, left0: float, top0: float, rows: int, cols: int, cell: tuple[float, float]
    ) -> NDArray[np.bool_]:
        if self.mask is not None:
            return self.mask.window(left0=left0, top0=top0, rows=rows, cols=cols, cell_x0=cell[0], cell_y0=cell[1])
        low, high = np.array([left0, top0]), np.array([left0 + cols * cell[0], top0 + rows * cell[1]])
        near = [a for a in self.outlines if (a.ring.max(axis=0) >= low).all() and (a.ring.min(axis=0) <= high).all()]
        return paint(near, rows=rows, cols=cols, cell_x0=cell[0], cell_y0=cell[1], left0=left0, top0=top0)


class SlideReader:
    """Fields of many slides: few are open at a time, what was cut is kept in `folder` up to `cache_mb`."""

    def __init__(self, slides: list[AnnotatedSlide], *, folder: Path, field_px: int, mpp: float, cache_mb: int) -> None:
        self.slides = {slide.name: slide for slide in slides}
        self.folder, self.field_px, self.mpp = folder, field_px, mpp
        self.cache_bytes = self.left_bytes = cache_mb * 10**6
        self._open: dict[str, tuple[Any, _Truth]] = {}
        if cache_mb:
            folder.mkdir(parents=True, exist_ok=True)
            self.share_with(1)

    def share_with(self, processes: int) -> None:
        """To be called before so many forked processes read in this one's place, and with 1 when they have ended.

        No slide is open then, since a child process answers one reader alone, and each of them may keep its part of what
        is left of the cache.
        """
        self.close()
        if self.cache_bytes:
            kept = sum(entry.stat().st_size for entry in self.folder.glob("*.npz"))
            self.left_bytes = (self.cache_bytes - kept) // processes

    def source_of(self, name: str) -> tuple[PixelSource, _Truth]:
        """Opens the slide in a child process; the one not used for longest is closed. Raises what opening it raises."""
        from slides.wsi.sandbox import open_pixels  # starts child processes: only when there are slides to read

        if name in self._open:
            self._open[name] = self._open.pop(name)
        else:
            while len(self._open) >= OPEN_SLIDES:
                self._open.pop(next(iter(self._open)))[0].close()
            source = open_pixels(self.slides[name].path)
            if source.mpp_x is None or source.mpp_y is None:
                source.close()
                raise SlideFolderError(f"{name} does not say its um per pixel")
            self._open[name] = (source, _Truth(self.slides[name], width=source.width, height=source.height))
        return self._open[name]

    def close(self) -> None:
        for source, _ in self._open.values():
            source.close()
        self._open.clear()

    def field(self, name: str, site: Site) -> Field:
        """The field of field_px around `site`. What cannot be read, and what is out of focus, is ignored."""
        stored = self.folder / f"{self._key(name, site)}.npz"
        if stored.exists():
            try:
                with np.load(stored, allow_pickle=False) as kept:
                    return Field(rgb=kept["rgb"], instance=kept["instance"], ignore=kept["ignore"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                stored.unlink(missing_ok=True)  # a damaged field is read anew from its slide
        field = self._cut(name, site)
        if self.left_bytes > field.rgb.nbytes:
            unfinished = stored.with_suffix(f".{os.getpid()}.part")
            with unfinished.open("wb") as file:
                np.savez_compressed(file, rgb=field.rgb, instance=field.instance, ignore=field.ignore)
            self.left_bytes -= unfinished.stat().st_size
            os.replace(unfinished, stored)
        return field

    def _key(self, name: str, site: Site) -> str:
        slide = self.slides[name]
        facts = [name, _stamp(slide.path), _stamp(slide.annotation), slide.partly, slide.mask_tumour_value]
        text = json.dumps([*facts, *site, self.field_px, self.mpp])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _cut(self, name: str, site: Site) -> Field:
        source, truth = self.source_of(name)
        cell = (self.mpp / float(source.mpp_x or 1), self.mpp / float(source.mpp_y or 1))
        left0, top0 = site[0] - self.field_px / 2 * cell[0], site[1] - self.field_px / 2 * cell[1]
        pixels = source.read_at_mpp(left0, top0, self.field_px, self.field_px, self.mpp)
        pad = int(np.ceil(RING_UM / self.mpp)) + 1
        side = self.field_px + 2 * pad
        wide = truth.window(left0=left0 - pad * cell[0], top0=top0 - pad * cell[1], rows=side, cols=side, cell=cell)
        inner = np.s_[pad:-pad, pad:-pad]
        tumour = wide[inner]
        if self.slides[name].partly:
            ignore = ~tumour
        elif wide.any():
            ignore = ~tumour & (distance_transform_edt(~wide)[inner] * self.mpp <= RING_UM)
        else:
            ignore = np.zeros_like(tumour)
        instance = label(tumour, structure=np.ones((3, 3)))[0].astype(np.int16)
        return Field(pixels.rgb, instance, ignore | pixels.failed | out_of_focus(pixels.rgb, mpp=self.mpp))


def out_of_focus(rgb: NDArray[np.uint8], *, mpp: float) -> NDArray[np.bool_]:
    """Blocks of stained tissue without fine detail (n, n). Glass and fat have none to lose and stay as they are."""
    n, block = rgb.shape[0], BLUR_BLOCK_PX
    blocks = n // block
    inner = blocks * block
    stained = (rgb[:inner, :inner, 1] < STAINED_GREEN).reshape(blocks, block, blocks, block).mean(axis=(1, 3))
    detail = cell_sharpness(rgb, block).astype(np.float64) ** 2
    blurred = (stained > LEAST_STAINED) & (detail[:blocks, :blocks] < floor_at(mpp) * stained)
    return np.pad(blurred.repeat(block, 0).repeat(block, 1), ((0, n - inner), (0, n - inner)), mode="edge")


def _stamp(path: Path | None) -> list[int]:
    if path is None:
        return []
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


# -- sites ---------------------------------------------------------------------------------------------------------------


def find_sites(slide: AnnotatedSlide, source: PixelSource, truth: _Truth, *, field_um: float) -> Sites:
    """The same for the same slide and annotation. Raises SlideFolderError for a slide without tissue."""
    assert source.mpp_x
    assert source.mpp_y
    rng = np.random.default_rng(int(hashlib.sha256(slide.name.encode()).hexdigest()[:8], 16))
    thumbnail = source.thumbnail_at_mpp(MAP_MPP)
    tissue = tissue_mask(thumbnail.rgb, MAP_MPP) & ~thumbnail.failed
    if not tissue.any():
        raise SlideFolderError("no tissue was found on it")
    lesions, edges, small, tumour8 = _lesion_sites(source, truth, field_um, tissue.shape, rng)
    normal = np.zeros_like(tissue)
    if not slide.partly:
        far = distance_transform_edt(~tumour8) * MAP_MPP > FAR_UM if tumour8.any() else np.ones_like(tissue)
        normal = tissue & far
    mm2 = float(tissue.sum()) * MAP_MPP**2 / 1e6
    wanted = int(np.clip(normal.sum() * MAP_MPP**2 / 1e6 * 8, *NORMAL_SITES))
    to_level0 = (MAP_MPP / source.mpp_x, MAP_MPP / source.mpp_y)
    return Sites(
        lesions=lesions,
        edges=edges,
        small=small,
        normal=_some(normal, wanted, to_level0, rng),
        tissue=_grid(normal, round(field_um * 0.7 / MAP_MPP), to_level0),
        tissue_mm2=round(mm2, 3),
    )


def _lesion_sites(
    source: PixelSource, truth: _Truth, field_um: float, shape8: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[tuple[Site, ...], ...], tuple[tuple[Site, ...], ...], tuple[bool, ...], NDArray[np.bool_]]:
    cell = (FINE_MPP / float(source.mpp_x or 1), FINE_MPP / float(source.mpp_y or 1))
    step = round(MAP_MPP / FINE_MPP)
    rows, cols = shape8[0] * step, shape8[1] * step
    fine = truth.window(left0=0, top0=0, rows=rows, cols=cols, cell=cell)
    numbered = label(fine, structure=np.ones((3, 3)))[0]
    lesions, edges, small = [], [], []
    for number, place in enumerate(find_objects(numbered), start=1):
        if place is None:
            continue
        own = np.pad(numbered[place] == number, 1)
        corner = (place[0].start - 1, place[1].start - 1)
        wanted = int(np.clip(own.sum() * FINE_MPP**2 / (field_um / 2) ** 2, *SITES_PER_LESION))
        lesions.append(_some(own, wanted, cell, rng, corner))
        edges.append(_some(own & ~binary_erosion(own), EDGE_SITES_PER_LESION, cell, rng, corner))
        small.append(longest_diameter_um(own) / MAP_MPP * FINE_MPP <= SMALL_UM)
    tumour8: NDArray[np.bool_] = np.asarray(fine.reshape(shape8[0], step, shape8[1], step).any(axis=(1, 3)), bool)
    return tuple(lesions), tuple(edges), tuple(small), tumour8


def _some(
    mask: NDArray[np.bool_],
    most: int,
    cell: tuple[float, float],
    rng: np.random.Generator,
    corner: tuple[int, int] = (0, 0),
) -> tuple[Site, ...]:
    """Centres (level-0 px) of at most so many cells of the mask, chosen at random; `corner` is its row and column."""
    rows, cols = np.nonzero(mask)
    chosen = rng.permutation(len(rows))[:most]
    return tuple(
        (round((cols[i] + corner[1] + 0.5) * cell[0]), round((rows[i] + corner[0] + 0.5) * cell[1])) for i in chosen
    )


def _grid(mask: NDArray[np.bool_], step: int, cell: tuple[float, float]) -> tuple[Site, ...]:
    """Centres of the squares of `step` cells at least a third of which the mask fills."""
    sites = []
    for top in range(0, mask.shape[0], step):
        for left in range(0, mask.shape[1], step):
            part = mask[top : top + step, left : left + step]
            if part.sum() * 3 >= step * step:
                sites.append((round((left + step / 2) * cell[0]), round((top + step / 2) * cell[1])))
    return tuple(sites)


# -- drawing -------------------------------------------------------------------------------------------------------------


class AnnotatedRegions:
    """Draws training regions of `side` px at `mpp` from annotated slides."""

    def __init__(self, sites: dict[str, Sites], reader: SlideReader, *, side: int, mpp: float) -> None:
        self.sites, self.reader, self.side, self.mpp = sites, reader, side, mpp
        self.lesions = [(name, i) for name, s in sites.items() for i in range(len(s.lesions))]
        weight = np.array([2.0 if sites[name].small[i] else 1.0 for name, i in self.lesions])
        self.lesion_share = weight / weight.sum() if len(weight) else weight
        self.normal = [name for name, s in sites.items() if s.normal]
        self.false_finds: list[tuple[str, Site]] = []

    def make(self, rng: np.random.Generator) -> Region:
        """A slide that can no longer be read raises what reading it raises: training on less than was said would be silent."""
        name, site = self._place(rng)
        return _region_of(self.reader.field(name, site), side=self.side, rng=rng)

    def _place(self, rng: np.random.Generator) -> tuple[str, Site]:
        has = {"lesion": self.lesions, "edge": self.lesions, "normal": self.normal, "false": self.false_finds}
        kinds = [kind for kind in SHARES if has[kind]]
        share = np.array([SHARES[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=share / share.sum()))]
        if kind == "false":
            return self.false_finds[int(rng.integers(len(self.false_finds)))]
        if kind == "normal":
            name = self.normal[int(rng.integers(len(self.normal)))]
            return name, _one(self.sites[name].normal, rng)
        name, i = self.lesions[int(rng.choice(len(self.lesions), p=self.lesion_share))]
        return name, _one((self.sites[name].lesions if kind == "lesion" else self.sites[name].edges)[i], rng)

    def fields_of_normal_tissue(self, most: int, rng: np.random.Generator) -> Iterator[tuple[str, Site, Field]]:
        """At most so many fields of the grid over normal tissue, slide by slide."""
        everything = [(name, site) for name, s in self.sites.items() for site in s.tissue]
        for i in sorted(rng.permutation(len(everything))[:most].tolist()):
            name, site = everything[i]
            yield name, site, self.reader.field(name, site)

    def fixed_fields(self, *, per_lesion: int, normal: int) -> list[Field]:
        """The same ones each time: the first sites of each lesion, and so many of normal tissue over all slides."""
        chosen = [(name, site) for name, i in self.lesions for site in self.sites[name].lesions[i][:per_lesion]]
        each = -(-normal // max(len(self.normal), 1))
        chosen += [(name, site) for name in self.normal for site in self.sites[name].normal[:each]]
        return [self.reader.field(name, site) for name, site in chosen]


def _one(sites: tuple[Site, ...], rng: np.random.Generator) -> Site:
    return sites[int(rng.integers(len(sites)))]


def _region_of(field: Field, *, side: int, rng: np.random.Generator) -> Region:
    """A cut of the field, scaled, shifted and turned."""
    have = field.rgb.shape[0]
    cut = min(round(side / float(np.exp(rng.uniform(*np.log(SCALE))))), have)
    y, x = (int(v) for v in rng.integers(0, have - cut + 1, 2))
    window = np.s_[y : y + cut, x : x + cut]
    rgb, instance, ignore = field.rgb[window], field.instance[window], field.ignore[window]
    if cut != side:
        size = (side, side)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
        rows = np.minimum(((np.arange(side) + 0.5) * cut / side).astype(int), cut - 1)
        instance, ignore = instance[np.ix_(rows, rows)], ignore[np.ix_(rows, rows)]
    which = int(rng.integers(8))
    rgb, instance, ignore = turn(rgb, which), turn(instance, which), turn(ignore, which)  # type: ignore[assignment]
    # a lesion may fall apart in the cut, and its number must not have gaps
    numbered = label(instance > 0, structure=np.ones((3, 3)))[0].astype(np.int16)
    return Region(rgb=np.ascontiguousarray(rgb), instance=numbered, ignore=np.ascontiguousarray(ignore))


class MixedRegions:
    """Regions of slides, and composed ones for the rest."""

    def __init__(self, slides: AnnotatedRegions, composed: Any, *, slide_share: float) -> None:
        self.slides, self.composed = slides, composed
        self.slide_share = slide_share if composed is not None else 1.0

    def make(self, rng: np.random.Generator) -> Region:
        made: Region
        if rng.random() < self.slide_share:
            made = self.slides.make(rng)
        else:
            made = self.composed.make(rng)
        return made


def open_slides(
    slides: list[AnnotatedSlide],
    *,
    folder: Path,
    region_px: int,
    mpp: float,
    cache_mb: int,
    say: Callable[[str], None],
) -> AnnotatedRegions | None:
    """Look through each slide for its sites (kept in `folder`), then draw from them. None without slides.

    A slide that cannot be read is left out and said so. Raises SlideFolderError when none of those with lesions can be.
    """
    if not slides:
        return None
    reader = SlideReader(
        slides, folder=folder / "fields", field_px=_even(region_px * FIELD_ROOM), mpp=mpp, cache_mb=cache_mb
    )
    sites: dict[str, Sites] = {}
    for slide in slides:
        try:
            sites[slide.name] = _kept_sites(slide, reader, folder / "sites")
        except (WsiError, SlideFolderError) as problem:
            say(f"  {slide.name} is left out: {problem}")
    if not any(s.lesions for s in sites.values()):
        raise SlideFolderError("none of the slides with lesions could be read")
    return AnnotatedRegions(sites, reader, side=region_px, mpp=mpp)


def _even(px: float) -> int:
    return round(px / 2) * 2


def _kept_sites(slide: AnnotatedSlide, reader: SlideReader, folder: Path) -> Sites:
    facts = [
        _stamp(slide.path),
        _stamp(slide.annotation),
        slide.partly,
        slide.mask_tumour_value,
        reader.field_px,
        reader.mpp,
    ]
    kept = folder / f"{slide.name}.json"
    try:
        stored = json.loads(kept.read_text(encoding="utf-8"))
        if stored["facts"] == facts:
            return _sites_from(stored["sites"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not looked through yet, or in the middle of being written: look again
    source, truth = reader.source_of(slide.name)
    sites = find_sites(slide, source, truth, field_um=reader.field_px * reader.mpp)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps({"facts": facts, "sites": vars(sites)}), encoding="utf-8")
    os.replace(unfinished, kept)
    return sites


def _sites_from(stored: dict[str, Any]) -> Sites:
    def pairs(of: list[list[int]]) -> tuple[Site, ...]:
        return tuple((int(x), int(y)) for x, y in of)

    return Sites(
        lesions=tuple(pairs(sites) for sites in stored["lesions"]),
        edges=tuple(pairs(sites) for sites in stored["edges"]),
        small=tuple(bool(v) for v in stored["small"]),
        normal=pairs(stored["normal"]),
        tissue=pairs(stored["tissue"]),
        tissue_mm2=float(stored["tissue_mm2"]),
    )
