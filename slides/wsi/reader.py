"""One slide, opened for reading. Decodes files that may be hostile: use only inside the sandbox child.

Readers are asked in this order: OpenSlide, the own TIFF reader, large_image; then the file is refused with a reason.
Where the tiles are baseline JPEG, pixels are read from them directly, whichever reader described the file.
"""

import io
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, ImageCms

from slides.wsi import dicom, tiff_walk
from slides.wsi.damaged_tiles import DamagedTiles
from slides.wsi.errors import NoScale, RefusalCode, SlideRefused
from slides.wsi.geometry import Level
from slides.wsi.jpeg_stream import EOI
from slides.wsi.level_check import KeptLevels
from slides.wsi.pixels import LevelSource, Mask, Pixels, Rgb
from slides.wsi.properties import (
    NO_SCALE,
    Scale,
    ScaleState,
    SlideProperties,
    objective_from_description,
    positive_number,
)
from slides.wsi.resample import read_scaled
from slides.wsi.slide_files import files_of
from slides.wsi.source_jpeg_tiles import JpegTileSource
from slides.wsi.source_large_image import LargeImageSource
from slides.wsi.source_openslide import OpenSlideSource, on_white, scale_of
from slides.wsi.source_tiff import TiffSource
from slides.wsi.source_upright import UprightSource
from slides.wsi.store_plan import StorePlan, plan_store
from slides.wsi.tiff_pyramid import TiffLevel, check_brightfield, label_and_macro, levels_of
from slides.wsi.tiff_scale import scale_of_tiff
from slides.wsi.tile_index import PassThrough, index_tiles, judge_pass_through
from slides.wsi.tile_store import PASS_THROUGH, load_index

LARGEST_ICC_BYTES = 4 << 20
LARGEST_ASSOCIATED_PIXELS = 64_000_000
_LARGEST_SLIDEDAT = 1 << 20
_MOST_LOOKED_AT = 2000
_EVEN = 16  # grey levels between bright and dark of an area without anything on it
_PLAIN_TILED = {"aperio", "generic-tiff", "philips"}  # OpenSlide vendors whose tiles neither overlap nor move
_READ_AS_PLAIN_TIFF = {None, "generic-tiff", "aperio"}
"""Where OpenSlide fails on another vendor's file, its tiles may overlap or lie elsewhere: a plain reader would be wrong."""
_PLAIN_COMPRESSIONS = (1, 5, 8, 32946)  # none, LZW, deflate
_NEEDS_FOLDER = {".mrxs": "its folder of the same name", ".vms": "the files it lists", ".vmu": "the files it lists"}


@dataclass(frozen=True)
class _Opened:
    """What the readers found, before it becomes a SlideReader."""

    properties: SlideProperties
    source: LevelSource
    tiff_levels: tuple[TiffLevel, ...]
    pass_through: PassThrough
    icc: bytes
    slide: openslide.OpenSlide | None
    layout: tiff_walk.TiffLayout | None


class SlideReader:
    """A context manager. Coordinates `x0, y0` are pixels of level 0, origin top left of the whole scan."""

    def __init__(
        self,
        path: Path,
        opened: _Opened,
        *,
        scale: tuple[float, float] | None = None,
        damaged: DamagedTiles | None = None,
    ) -> None:
        self.path = path
        self.properties = opened.properties
        self.source = opened.source
        self.tiff_levels = opened.tiff_levels
        self.pass_through = opened.pass_through
        self.icc = opened.icc
        self._slide = opened.slide
        self._layout = opened.layout
        self._scale = scale
        self._damaged = damaged

    @property
    def store_plan(self) -> StorePlan:
        """What the tile store of this slide is to be."""
        return plan_store(
            pass_through_possible=self.pass_through.possible,
            reason=self.pass_through.reason,
            width=self.properties.width,
            height=self.properties.height,
        )

    @property
    def scale(self) -> tuple[float, float]:
        """(mpp_x, mpp_y). Raises NoScale where the file has none that can be believed and none was given."""
        if self._scale:
            return self._scale
        properties = self.properties
        if properties.scale_state != ScaleState.OK or properties.mpp_x is None or properties.mpp_y is None:
            raise NoScale("The pixel size of this slide is not known. An operator must enter it first.")
        return properties.mpp_x, properties.mpp_y

    def read_region(self, x0: int, y0: int, level_index: int, width: int, height: int) -> Rgb:
        """uint8 (height, width, 3) of one level, white where there is no slide or nothing could be read."""
        level = self.source.levels[level_index]
        x, y = round(x0 / level.downsample), round(y0 / level.downsample)
        return self.source.read_level(level_index, x, y, width, height).rgb

    def read_at_mpp(self, x0: float, y0: float, width_px: int, height_px: int, mpp: float) -> Pixels:
        """Exact spacing by area averaging from the nearest finer level. Never raises for a bad tile."""
        mpp_x, mpp_y = self.scale
        return self.read_at_downsample(x0, y0, width_px, height_px, mpp / mpp_x, mpp / mpp_y)

    def read_at_downsample(
        self, x0: float, y0: float, width_px: int, height_px: int, pixel0_x: float, pixel0_y: float
    ) -> Pixels:
        """As read_at_mpp, with the size of a wanted pixel given in level-0 pixels: needs no scale."""
        pixels = read_scaled(
            self.source, x0=x0, y0=y0, width=width_px, height=height_px, pixel0_x=pixel0_x, pixel0_y=pixel0_y
        )
        if self._damaged:
            self._damaged.mark(pixels.failed, x0=x0, y0=y0, pixel0_x=pixel0_x, pixel0_y=pixel0_y)
        return pixels

    def associated_images(self) -> dict[str, Rgb]:
        """Label, macro and thumbnail by name, those that could be read. They may show a patient's name."""
        images: dict[str, Rgb] = {}
        for name in self.properties.associated:
            image = self._associated(name)
            if image is not None:
                images[name] = image
        return images

    def _associated(self, name: str) -> Rgb | None:
        if self._slide is not None and name in set(self._slide.associated_images):
            said = self._slide.properties
            size = [
                positive_number(said.get(f"openslide.associated.{name}.{side}", "")) for side in ("width", "height")
            ]
            if (size[0] or 0) * (size[1] or 0) > LARGEST_ASSOCIATED_PIXELS:
                return None
            try:
                return on_white(np.asarray(self._slide.associated_images[name]))
            except openslide.OpenSlideError:
                self._slide.close()  # it is lost after an error
                self._slide = openslide.OpenSlide(self.path)
                return None
        directory = label_and_macro(self._layout).get(name) if self._layout else None
        if directory is None or directory.width * directory.height > LARGEST_ASSOCIATED_PIXELS:
            return None
        level = TiffLevel(
            Level(0, directory.width, directory.height, 1.0, directory.tile_width, directory.tile_height), directory
        )
        source = TiffSource(self.path, (level,))
        try:
            return source.read_level(0, 0, 0, directory.width, directory.height).rgb
        finally:
            source.close()

    def leave_out_levels(self, numbers: Collection[int]) -> None:
        """As if the file did not have these levels: they show something else than its full resolution."""
        if not numbers:
            return
        kept = [level.index for level in self.source.levels if level.index not in numbers]
        if isinstance(self.source, JpegTileSource):
            self.source = self.source.only(kept)
        else:
            self.source = KeptLevels(self.source, kept)
        self.properties = replace(self.properties, levels=self.source.levels)

    def close(self) -> None:
        self.source.close()
        if self._slide is not None:
            self._slide.close()

    def __enter__(self) -> "SlideReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_slide(
    path: Path,
    *,
    mpp_override: tuple[float, float] | None = None,
    store: Path | None = None,
    checked: Path | None = None,
) -> SlideReader:
    """Open a slide file, or the folder of a DICOM series. Raises SlideRefused with the reason.

    `store`: the tile store made from this slide; pixels then come from its ready levels, which is much faster for
    files whose own tiles are not JPEG or whose levels are far apart. `checked`: the tile store, for its list of damaged
    tiles alone.
    """
    path = Path(path)
    opened = _open(path)
    if store is not None:
        opened.source.close()
        opened = replace(opened, source=_store_source(store, path))
    damaged = DamagedTiles.of_store(checked) if checked else None
    reader = SlideReader(path, opened, scale=mpp_override, damaged=damaged)
    if damaged:
        reader.leave_out_levels(damaged.levels_left_out)
    return reader


def _store_source(folder: Path, slide_file: Path) -> JpegTileSource:
    """The store's levels; its first file is the slide itself where tiles are passed through, wherever it lies now."""
    document, index, _ = load_index(folder)
    files = [folder / Path(entry["path"]).name for entry in document["files"]]
    if document["kind"] == PASS_THROUGH:
        files[0] = slide_file
    return JpegTileSource(index, [os.open(file, os.O_RDONLY | os.O_CLOEXEC) for file in files])


def _open(path: Path) -> _Opened:
    path = _file_of(path)
    if dicom.is_dicom(path):  # also where its preamble makes it a TIFF at the same time
        dicom.check(path)
        if path.suffix.lower() not in (".dcm", ""):  # OpenSlide looks beside it, which only files called so may do
            raise SlideRefused(
                RefusalCode.UNSUPPORTED_FORMAT,
                f"The file is DICOM and is called {path.suffix}. Send it with the ending .dcm.",
            )
        dicom.check_series(files_of(path)[1:])  # the rest of its series lies beside it
        return _open_other(path)
    if not tiff_walk.is_tiff(path):
        return _open_other(path)
    layout = tiff_walk.walk(path)
    check_brightfield(layout)
    try:
        slide = OpenSlideSource(path)
    except openslide.OpenSlideError as error:
        if layout.ndpi or openslide.OpenSlide.detect_format(path) not in _READ_AS_PLAIN_TIFF:
            raise _refused_by_openslide(path, str(error)) from error
        return _open_tiff(path, layout, openslide_said=str(error))
    if _openslide_sees_otherwise(slide, layout):
        slide.close()
        return _open_tiff(path, layout, openslide_said="")
    return _described_by_openslide(path, slide, layout)


def _openslide_sees_otherwise(source: OpenSlideSource, layout: tiff_walk.TiffLayout) -> bool:
    """OpenSlide's plain TIFF reader does not look where OME-TIFF keeps levels and pixel size, and takes any tiled image
    for a level."""
    if source.slide.properties.get("openslide.vendor") != "generic-tiff":
        return False
    if (layout.image.width, layout.image.height) != source.slide.dimensions:
        return True
    return "<OME" in layout.image.description[:4000] or len(levels_of(layout)) != len(source.levels)


def _file_of(path: Path) -> Path:
    """The file to open: the path itself, or one file of a DICOM series in a folder."""
    if path.is_dir():
        members = sorted(member for member in path.iterdir() if member.is_file())
        for member in members:
            if dicom.is_dicom(member):
                dicom.check_series(members)
                return member
        raise SlideRefused(
            RefusalCode.NOT_A_SLIDE, "The folder holds no slide: only folders of one DICOM series can be given."
        )
    if not path.is_file():
        raise SlideRefused(RefusalCode.NOT_A_SLIDE, "This is not a file.")
    if path.stat().st_size == 0:
        raise SlideRefused(RefusalCode.EMPTY, "The file is empty (0 bytes). Copy it from the scanner again.")
    return path


def _open_other(path: Path) -> _Opened:
    """Not TIFF: what OpenSlide knows, then large_image."""
    _check_jpeg_companions(path)
    _check_mirax_size(path)
    try:
        return _described_by_openslide(path, OpenSlideSource(path), None)
    except openslide.OpenSlideUnsupportedFormatError as error:
        if path.suffix.lower() in _NEEDS_FOLDER:
            raise _refused_by_openslide(path, str(error)) from error
    except openslide.OpenSlideError as error:
        raise _refused_by_openslide(path, str(error)) from error
    return _open_with_large_image(path, said="")


def _check_jpeg_companions(path: Path) -> None:
    """A Hamamatsu VMS slide is a list of JPEG files; of a cut one OpenSlide shows the missing part as grey."""
    if path.suffix.lower() != ".vms":
        return
    with path.open("rb") as file:  # the folder itself may not be listed in here
        named = re.findall(rb"=\s*([^/\\\r\n]+\.jpg)", file.read(_LARGEST_SLIDEDAT), re.IGNORECASE)
    for image in (path.parent / os.fsdecode(name) for name in named):
        if image.is_file() and EOI not in _last_bytes(image):
            raise SlideRefused(
                RefusalCode.TRUNCATED,
                f"The file {image.name} of the slide is truncated at byte {image.stat().st_size:,}: the copy did not finish. "
                "Copy the slide with all its files from the scanner again.",
            )


def _check_mirax_size(path: Path) -> None:
    """OpenSlide walks over as many images as Slidedat.ini names, however many that are."""
    index = path.with_suffix("") / "Slidedat.ini"
    if path.suffix.lower() != ".mrxs" or not index.is_file():
        return
    with index.open("rb") as file:
        said = re.findall(rb"^\s*IMAGENUMBER_[XY]\s*=\s*(-?\d+)", file.read(_LARGEST_SLIDEDAT), re.MULTILINE)
    if math.prod(abs(int(number)) for number in said) > tiff_walk.LARGEST_TILE_COUNT:
        raise SlideRefused(RefusalCode.TOO_LARGE, "The slide claims more images than any scanner makes. It is damaged.")


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read()


def _refused_by_openslide(path: Path, said: str) -> SlideRefused:
    words = re.sub(r"^Reading .*?: ", "", said)
    suffix = path.suffix.lower()
    if "transfer syntax" in said.lower():
        return SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT,
            f"The DICOM file is compressed in a way that cannot be read ({words}). Export it as JPEG or JPEG 2000.",
        )
    if suffix in _NEEDS_FOLDER:
        return SlideRefused(
            RefusalCode.INCOMPLETE, f"A {suffix} slide needs {_NEEDS_FOLDER[suffix]}, sent together with it ({words})."
        )
    return SlideRefused(RefusalCode.UNREADABLE, f"The file cannot be read as a slide: {words}.")


def _open_with_large_image(path: Path, *, said: str) -> _Opened:
    try:
        source = LargeImageSource(path)
    except MemoryError:
        raise
    except Exception as error:  # its sources raise what their libraries raise; all mean "cannot be read"
        raise SlideRefused(
            RefusalCode.NOT_A_SLIDE if not said else RefusalCode.UNSUPPORTED_FORMAT,
            f"The file is not a slide of a known format{f' ({said})' if said else ''}. Send the scanner's own file.",
        ) from error
    facts = source.magnification
    mpp = [value * 1000 if value else None for value in (facts.get("mm_x"), facts.get("mm_y"))]
    scale = Scale(mpp[0], mpp[1], "file:large_image") if all(mpp) else NO_SCALE
    properties = _properties(
        "large_image", "unknown", source.levels, scale, objective=facts.get("magnification"), associated=()
    )
    return _Opened(properties, source, (), PassThrough(False, "its format has no ready JPEG tiles"), b"", None, None)


def _described_by_openslide(path: Path, source: OpenSlideSource, layout: tiff_walk.TiffLayout | None) -> _Opened:
    said = dict(source.slide.properties)
    vendor = said.get("openslide.vendor", "unknown")
    tiff_levels = _matching_levels(layout, source) if layout is not None and vendor in _PLAIN_TILED else ()
    orientation = layout.image.orientation if layout is not None and vendor == "generic-tiff" else 1
    icc = _icc_of(source.slide)
    associated = tuple(sorted(set(source.slide.associated_images) | set(label_and_macro(layout) if layout else ())))
    scale = scale_of(said)
    if layout is not None and scale.state is ScaleState.MISSING:
        scale = scale_of_tiff(layout)
    pixels, pass_through = _fast_source(path, source, tiff_levels, vendor)
    if orientation != 1 and layout is not None:
        pixels = _upright(path, layout, orientation)  # OpenSlide mirrors each tile in itself here
    properties = _properties(
        openslide.OpenSlide.detect_format(path) or vendor,
        vendor,
        pixels.levels,
        _turned_scale(scale, orientation),
        objective=positive_number(said.get("openslide.objective-power", "")),
        associated=associated,
        scanner=said.get("aperio.ScanScope ID", said.get("tiff.Model", said.get("dicom.ManufacturerModelName", ""))),
        icc=bool(icc),
        quickhash=said.get("openslide.quickhash-1", ""),
        focal_planes=int(positive_number(said.get("hamamatsu.zFine", 1)) or 1) if "hamamatsu.zCount" in said else 1,
        orientation=orientation,
        bounds=tuple(int(said.get(f"openslide.bounds-{name}", 0)) for name in ("x", "y", "width", "height")),
    )
    slide = openslide.OpenSlide(path) if associated else None
    return _Opened(properties, pixels, tiff_levels, pass_through, icc, slide, layout)


def _matching_levels(layout: tiff_walk.TiffLayout, source: OpenSlideSource) -> tuple[TiffLevel, ...]:
    """The TIFF's levels if they are the ones OpenSlide shows; else none, and OpenSlide reads the pixels.

    OpenSlide may show more: padded last levels of one tile that have the size of the level before.
    """
    levels = levels_of(layout)
    shown = {(level.width, level.height) for level in source.levels}
    return levels if {(each.level.width, each.level.height) for each in levels} == shown else ()


def _fast_source(
    path: Path, slow: LevelSource, tiff_levels: tuple[TiffLevel, ...], vendor: str
) -> tuple[LevelSource, PassThrough]:
    """Direct JPEG tiles where they are plain baseline JPEG, else the given source."""
    if not tiff_levels:
        return slow, PassThrough(False, f"the tiles of a {vendor} file cannot be served as they are")
    empty = _empty_tiles(tiff_levels[0])
    if vendor == "philips" and empty.any():
        return slow, PassThrough(False, "it leaves out the tiles of bare glass, which must be drawn")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    pass_through = judge_pass_through(descriptor, tiff_levels)
    if not pass_through.possible:
        os.close(descriptor)
        decoded = _decoded_directly(path, slow, tiff_levels)
        if isinstance(decoded, OpenSlideSource):  # it shows empty tiles as glass; Aperio's scanners leave out nothing
            decoded.mark_lost(empty if vendor == "aperio" else _lost_tiles(decoded, empty))
        return decoded, pass_through
    slow.close()
    return JpegTileSource(index_tiles(descriptor, tiff_levels, file=0), [descriptor]), pass_through


def _empty_tiles(tiff_level: TiffLevel) -> Mask:
    """bool (rows, cols) of the tiles without any data."""
    level, directory = tiff_level.level, tiff_level.directory
    if not directory.tiled:
        return np.zeros((level.rows, level.cols), np.bool_)
    cols = -(-directory.width // directory.tile_width)
    rows = -(-directory.height // directory.tile_height)
    mask: Mask = directory.segments()[1][: rows * cols].reshape(rows, cols)[: level.rows, : level.cols] == 0
    return mask


def _lost_tiles(source: OpenSlideSource, empty: Mask) -> Mask:
    """Which of the empty tiles of the full resolution were not left out on purpose: a reduced level shows something there.

    Writers leave out tiles of bare glass in all levels alike. Without a reduced level nothing can be told: lost.
    """
    if not empty.any() or len(source.levels) == 1:
        return empty
    full, reduced = source.levels[0], source.levels[1]
    lost = empty.copy()
    for row, col in np.argwhere(empty)[:_MOST_LOOKED_AT]:
        left = int(col * full.tile_width / reduced.downsample) + 2
        top = int(row * full.tile_height / reduced.downsample) + 2
        width = min(int(full.tile_width / reduced.downsample) - 4, reduced.width - left)
        height = min(int(full.tile_height / reduced.downsample) - 4, reduced.height - top)
        shown = source.read_level(reduced.index, left, top, max(1, width), max(1, height)).rgb
        darkest, brightest = np.percentile(shown, (1, 99), axis=(0, 1))
        lost[row, col] = (brightest - darkest).max() > _EVEN
    return lost


def _decoded_directly(path: Path, slow: LevelSource, tiff_levels: tuple[TiffLevel, ...]) -> LevelSource:
    """Plain RGB tiles need nothing of OpenSlide, and are decoded four times as fast without it. JPEG 2000 stays with it:
    its colours have more than one meaning."""
    if isinstance(slow, TiffSource):
        return slow
    for level in tiff_levels:
        directory = level.directory
        plain = directory.compression in _PLAIN_COMPRESSIONS and directory.photometric == tiff_walk.RGB
        if not (plain and directory.tiled and directory.samples == 3 and directory.bits == 8):
            return slow
    try:
        direct = TiffSource(path, tiff_levels)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 tifffile raises what its parsing runs into; OpenSlide can read it
        return slow
    slow.close()
    return direct


def _open_tiff(path: Path, layout: tiff_walk.TiffLayout, *, openslide_said: str) -> _Opened:
    """A TIFF that OpenSlide does not take: flat, in strips, OME."""
    first = layout.image
    levels = levels_of(layout)
    try:
        slow: LevelSource = TiffSource(path, levels)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 tifffile raises what its parsing runs into; all mean "cannot be read"
        return _open_with_large_image(path, said=f"{error}; {openslide_said}")
    source, pass_through = _fast_source(path, slow, levels, "TIFF")
    if first.orientation != 1:
        source = _upright(path, layout, first.orientation)
    icc = _usable_icc(first.raw(tiff_walk.ICC_PROFILE))
    properties = _properties(
        "ome-tiff" if "<OME" in first.description[:4000] else "tiff",
        first.text(tiff_walk.MAKE) or "unknown",
        source.levels,
        _turned_scale(scale_of_tiff(layout), first.orientation),
        objective=objective_from_description(first.description),
        associated=tuple(label_and_macro(layout)),
        scanner=first.text(tiff_walk.MODEL),
        icc=bool(icc),
        orientation=first.orientation,
    )
    return _Opened(properties, source, levels, pass_through, icc, None, layout)


def _upright(path: Path, layout: tiff_walk.TiffLayout, orientation: int) -> LevelSource:
    return UprightSource(TiffSource(path, levels_of(layout)), orientation)


def _turned_scale(scale: Scale, orientation: int) -> Scale:
    return Scale(scale.mpp_y, scale.mpp_x, scale.source) if orientation >= 5 else scale


def _icc_of(slide: openslide.OpenSlide) -> bytes:
    try:
        profile = slide.color_profile
    except (openslide.OpenSlideError, ImageCms.PyCMSError):
        return b""
    return _usable_icc(profile.tobytes() if profile is not None else b"")


def _usable_icc(data: bytes) -> bytes:
    """A monstrous or unusable colour profile is left out: that changes colours slightly and nothing else."""
    if not 0 < len(data) <= LARGEST_ICC_BYTES:
        return b""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return b""
    return data


def _properties(
    format_: str,
    vendor: str,
    levels: tuple[Level, ...],
    scale: Scale,
    *,
    objective: float | None,
    associated: tuple[str, ...],
    scanner: str = "",
    icc: bool = False,
    quickhash: str = "",
    focal_planes: int = 1,
    orientation: int = 1,
    bounds: tuple[int, ...] = (0, 0, 0, 0),
) -> SlideProperties:
    width, height = levels[0].width, levels[0].height
    if width * height > tiff_walk.LARGEST_PIXEL_COUNT:
        raise SlideRefused(RefusalCode.TOO_LARGE, f"The slide claims {width:,} x {height:,} pixels.")
    return SlideProperties(
        format=format_,
        vendor=vendor,
        width=width,
        height=height,
        levels=levels,
        mpp_x=scale.mpp_x,
        mpp_y=scale.mpp_y,
        mpp_source=scale.source,
        scale_state=scale.state.value,
        objective=objective,
        scanner=scanner,
        icc=icc,
        bounds_x0=bounds[0],
        bounds_y0=bounds[1],
        bounds_width=bounds[2] or width,
        bounds_height=bounds[3] or height,
        quickhash=quickhash,
        focal_planes=focal_planes,
        orientation=orientation,
        associated=associated,
    )


def encoded_png(rgb: Rgb) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()
