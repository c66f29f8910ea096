"""What can be done to a slide. Each mutation takes the path of the slide and parameters, and changes the file in place.

A mutation may return another path: the slide is then that one. Names and parameters are those of the recipes.
"""

import os
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from ..wsi.made_slides import tissue_picture
from . import bases, dicom_files, vendor_files
from .tiff_edit import TAGS, Entry, TiffEditor

Mutation = Callable[..., Path | None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(make: Mutation) -> Mutation:
    MUTATIONS[make.__name__] = make
    return make


def _edit(path: Path, act: Callable[[TiffEditor], Any]) -> None:
    editor = TiffEditor(path.read_bytes())
    act(editor)
    path.write_bytes(bytes(editor.data))


# --- directories ---------------------------------------------------------------------------------------
@mutation
def drop_tag(path: Path, *, ifd: str = "0", tag: str) -> None:
    _edit(path, lambda tiff: tiff.drop_tag(ifd, tag))


@mutation
def set_tag(
    path: Path, *, tag: str | int, value: Any, ifd: str = "0", type: str | None = None, count: int | None = None
) -> None:
    _edit(path, lambda tiff: tiff.set_tag(ifd, tag, value, type=type, count=count))


@mutation
def edit_entry(
    path: Path,
    *,
    tag: str | int,
    ifd: str = "0",
    type: str | None = None,
    count: int | None = None,
    place: int | None = None,
) -> None:
    """The words of the directory entry alone; `place` -1 is just past the end of the file."""

    def act(tiff: TiffEditor) -> None:
        tiff.edit_entry(ifd, tag, type=type, count=count, place=len(tiff.data) + 4096 if place == -1 else place)

    _edit(path, act)


@mutation
def set_tag_same(path: Path, *, tag: str, type: str, ifd: str = "0") -> None:
    """The same values as another type."""

    def act(tiff: TiffEditor) -> None:
        values = tiff.values(ifd, tag)
        tiff.set_tag(ifd, tag, [float(value) for value in values] if type == "DOUBLE" else values, type=type)

    _edit(path, act)


@mutation
def add_entries(path: Path, *, number: int, ifd: str = "0") -> None:
    """Private tags of no meaning."""

    def act(tiff: TiffEditor) -> None:
        more = [Entry(50000 + each, 4, 1, tiff.pack("I", each).ljust(tiff.place_size, b"\0")) for each in range(number)]
        tiff.put_directory(ifd, [*tiff.entries(tiff.offset(ifd)), *more])

    _edit(path, act)


@mutation
def double_entry(path: Path, *, tag: str, value: int, ifd: str = "0") -> None:
    """The tag a second time, with another value, after the first."""

    def act(tiff: TiffEditor) -> None:
        kept = tiff.entries(tiff.offset(ifd))
        old = next(each for each in kept if each.tag == TAGS[tag])
        other = Entry(old.tag, 4, 1, tiff.pack("I", value).ljust(tiff.place_size, b"\0"))
        at = kept.index(old) + 1
        tiff.put_directory(ifd, [*kept[:at], other, *kept[at:]], sort=False)

    _edit(path, act)


@mutation
def reverse_entries(path: Path, *, ifd: str = "0") -> None:
    _edit(path, lambda tiff: tiff.put_directory(ifd, tiff.entries(tiff.offset(ifd))[::-1], sort=False))


@mutation
def set_next(path: Path, *, ifd: str, to: str | int) -> None:
    """`to`: an offset, a directory ("0"), "end" (past the file) or "inside" (into pixel data)."""

    def act(tiff: TiffEditor) -> None:
        if isinstance(to, int):
            place = to
        elif to == "end":
            place = len(tiff.data) + 1000
        elif to == "inside":
            place = tiff.segment("0", 0)[0] + 3
        else:
            place = tiff.offset(to)
        tiff.set_next(ifd, place)

    _edit(path, act)


@mutation
def chain_of_directories(path: Path, *, number: int) -> None:
    """Copies of the last directory, one after another."""

    def act(tiff: TiffEditor) -> None:
        last = 0
        while tiff.unpack(tiff.place_code, tiff.next_link(tiff.offset(str(last))))[0]:
            last += 1
        link = tiff.next_link(tiff.offset(str(last)))
        body = bytes(tiff.data[tiff.offset(str(last)) : link])
        for _ in range(number):
            tiff.align()
            place = len(tiff.data)
            tiff.data[link : link + tiff.place_size] = tiff.pack(tiff.place_code, place)
            tiff.data += body + tiff.pack(tiff.place_code, 0)
            link = len(tiff.data) - tiff.place_size

    _edit(path, act)


@mutation
def sub_directories(path: Path, *, to: str, number: int = 1) -> None:
    """SubIFDs of the first directory that point at directory `to`, or past the end ("end")."""

    def act(tiff: TiffEditor) -> None:
        place = len(tiff.data) + 5000 if to == "end" else tiff.offset(to)
        tiff.set_tag("0", "SubIFDs", [place] * number, type="LONG")

    _edit(path, act)


@mutation
def sub_directory_of_itself(path: Path) -> None:
    """The first directory lists its own place among its SubIFDs."""

    def act(tiff: TiffEditor) -> None:
        tiff.set_tag("0", "SubIFDs", 0, type="LONG")
        tiff.set_value("0", "SubIFDs", 0, tiff.offset("0"))

    _edit(path, act)


@mutation
def drop_levels(path: Path, *, keep: int) -> None:
    """The chain of directories ends after `keep`."""
    _edit(path, lambda tiff: tiff.set_next(str(keep - 1), 0))


@mutation
def swap_levels(path: Path, *, first: str, second: str) -> None:
    """Two directories change places in the chain: their offsets stay, their bodies are exchanged."""

    def act(tiff: TiffEditor) -> None:
        one, other = tiff.entries(tiff.offset(first)), tiff.entries(tiff.offset(second))
        tiff.put_directory(first, other)
        tiff.put_directory(second, one)

    _edit(path, act)


# --- raw bytes -------------------------------------------------------------------------------------------
@mutation
def patch(path: Path, *, at: int, hex: str) -> None:
    """Bytes in place; a negative place counts from the end."""
    data = bytearray(path.read_bytes())
    at = at if at >= 0 else len(data) + at
    data[at : at + len(bytes.fromhex(hex))] = bytes.fromhex(hex)
    path.write_bytes(bytes(data))


@mutation
def replace(path: Path, *, find: str, by: str, times: int = -1, file: str = "") -> None:
    """A text by another one of any length, for files without offsets in them."""
    target = path.parent / file if file else path
    data = target.read_bytes()
    if find.encode() not in data:
        raise ValueError(f"{target.name} does not hold {find!r}")
    target.write_bytes(data.replace(find.encode(), by.encode(), times))


@mutation
def cut(
    path: Path, *, share: float | None = None, at: int | None = None, before: str = "", ifd: str = "0", plus: int = 0,
    tile: int = 0, file: str = "",
) -> None:  # fmt: skip
    """Ends the file at a share of it, a byte, or `plus` bytes into a structure: "directory", "tile", "offsets"."""
    target = path.parent / file if file else path
    data = target.read_bytes()
    if share is not None:
        place = int(len(data) * share)
    elif at is not None:
        place = at if at >= 0 else len(data) + at
    else:
        tiff = TiffEditor(data)
        place = {
            "directory": lambda: tiff.offset(ifd),
            "tile": lambda: tiff.segment(ifd, tile)[0],
            "offsets": lambda: tiff.value_place(tiff.offset(ifd), tiff.entry(ifd, tiff.segment_tags(ifd)[0])),
        }[before]()
    target.write_bytes(data[: place + plus])


@mutation
def append(path: Path, *, size: int, byte: int = 0) -> None:
    with path.open("ab") as file:
        file.write(bytes([byte]) * size)


@mutation
def flip_bits(path: Path, *, seed: int, number: int, where: str = "all", ifd: str = "0", file: str = "") -> None:
    """Seeded flips in the header, a directory, its pixel data, or anywhere."""
    target = path.parent / file if file else path
    data = bytearray(target.read_bytes())
    tiff = TiffEditor(bytes(data)) if where != "all" else None
    if tiff is None:
        first, last = 0, len(data)
    elif where == "header":
        first, last = 0, 16
    elif where == "directory":
        first = tiff.offset(ifd)
        last = tiff.next_link(first) + tiff.place_size
    else:
        offsets, counts = tiff.segment_tags(ifd)
        places = list(zip(tiff.values(ifd, offsets), tiff.values(ifd, counts), strict=True))
        first, last = min(at for at, _ in places), max(at + size for at, size in places)
    chance = random.Random(seed)
    for _ in range(number):
        data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
    target.write_bytes(bytes(data))


@mutation
def zero_range(path: Path, *, share_from: float, share_to: float, file: str = "") -> None:
    """A stretch of zeros, as a copy that was interrupted and went on leaves it."""
    target = path.parent / file if file else path
    data = bytearray(target.read_bytes())
    first, last = int(len(data) * share_from), int(len(data) * share_to)
    data[first:last] = bytes(last - first)
    target.write_bytes(bytes(data))


@mutation
def repeat_file(path: Path, *, times: int) -> None:
    path.write_bytes(path.read_bytes() * times)


# --- tiles ---------------------------------------------------------------------------------------------
def _jpeg_tile(width: int, height: int, **options: Any) -> bytes:
    picture = Image.fromarray(tissue_picture(width, height, seed=9))
    import io

    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def _spoiled(data: bytes, how: str) -> bytes:
    """Other bytes in the place of a tile's."""
    if how == "zeros":
        return bytes(len(data))
    if how == "ones":
        return b"\xff" * len(data)
    if how == "cut":
        return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    if how == "shortened":
        return data[: len(data) // 2]
    if how == "without end":
        return data[:-2]
    if how == "headers only":
        return data[:40]
    if how == "start only":
        return data[:2]
    if how == "one byte":
        return data[:1]
    if how == "text":
        return b"<html><body>404 Not Found</body></html>".ljust(len(data), b" ")
    if how == "middle zeros":
        third = len(data) // 3
        return data[:third] + bytes(third) + data[2 * third :]
    if how == "no scan":
        return data[: data.index(b"\xff\xda")] + b"\xff\xd9"
    if how == "restart markers":
        middle = data.index(b"\xff\xda") + 40
        return data[:middle] + b"\xff\xd0\xff\xd3\xff\xd1" + data[middle:]
    if how in ("giant frame", "zero frame", "flat frame"):
        at = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2))
        size = {"giant frame": b"\xff\xff\xff\xff", "zero frame": b"\0\0\0\0", "flat frame": b"\0\x01\x7f\xff"}[how]
        return data[: at + 5] + size + data[at + 9 :]
    if how == "twelve bits":
        at = data.index(b"\xff\xc0")
        return data[: at + 4] + b"\x0c" + data[at + 5 :]
    if how == "lossless":
        return data.replace(b"\xff\xc0", b"\xff\xc3", 1)
    if how == "arithmetic":
        return data.replace(b"\xff\xc0", b"\xff\xc9", 1)
    raise ValueError(how)


@mutation
def spoil_tiles(path: Path, *, tiles: list[int], how: str, ifd: str = "0") -> None:
    """Bytes of tiles or strips made bad, where they lie."""

    def act(tiff: TiffEditor) -> None:
        for number in tiles:
            offset, length = tiff.segment(ifd, number)
            bad = _spoiled(bytes(tiff.data[offset : offset + length]), how)
            if len(bad) <= length:
                tiff.data[offset : offset + len(bad)] = bad
                tiff.set_value(ifd, tiff.segment_tags(ifd)[1], number, len(bad))
            else:
                tiff.place_segment(ifd, number, bad)

    _edit(path, act)


@mutation
def point_tiles(
    path: Path, *, tiles: list[int], ifd: str = "0", offset: int | str | None = None, length: int | None = None
) -> None:
    """Another place or length: `offset` may be "end" (past the file), "header", "directory", or "tile:n"."""

    def act(tiff: TiffEditor) -> None:
        offsets, counts = tiff.segment_tags(ifd)
        for number in tiles:
            place = offset
            if offset == "end":
                place = len(tiff.data) + 100
            elif offset == "header":
                place = 0
            elif offset == "directory":
                place = tiff.offset("0")
            elif isinstance(offset, str):
                place, size = tiff.segment(ifd, int(offset.removeprefix("tile:")))
                tiff.set_value(ifd, counts, number, size)
            if isinstance(place, int):
                tiff.set_value(ifd, offsets, number, place)
            if length is not None:
                tiff.set_value(ifd, counts, number, length)

    _edit(path, act)


@mutation
def other_tiles(
    path: Path, *, tiles: list[int], kind: str, width: int = 128, height: int = 128, ifd: str = "0"
) -> None:
    """Good data of another kind in the place of tiles."""

    def act(tiff: TiffEditor) -> None:
        made = {
            "jpeg": lambda: _jpeg_tile(width, height, subsampling=0),
            "progressive": lambda: _jpeg_tile(width, height, progressive=True),
            "grey": lambda: bytes(
                simplejpeg.encode_jpeg(tissue_picture(width, height)[..., 1:2].copy(), colorspace="GRAY")
            ),
            "cmyk": lambda: _cmyk_jpeg(width, height),
            "png": lambda: imagecodecs.png_encode(tissue_picture(width, height)),
            "jp2k": lambda: imagecodecs.jpeg2k_encode(tissue_picture(width, height), codecformat="j2k", level=40),
            "commented": lambda: _commented(_jpeg_tile(width, height, subsampling=0)),
            "deflate bomb": lambda: zlib.compress(bytes(300 << 20), 9),
            "zstd bomb": lambda: imagecodecs.zstd_encode(bytes(1 << 30)),
            "lzw bomb": lambda: imagecodecs.lzw_encode(bytes(64 << 20)),
            "jp2k giant": lambda: _giant_jp2k(width, height),
        }[kind]()
        for number in tiles:
            tiff.place_segment(ifd, number, made)

    _edit(path, act)


def _cmyk_jpeg(width: int, height: int) -> bytes:
    import io

    out = io.BytesIO()
    Image.fromarray(tissue_picture(width, height)).convert("CMYK").save(out, "JPEG", quality=90)
    return out.getvalue()


def _commented(jpeg: bytes) -> bytes:
    """A comment of 60 kB between start and tables."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", 60000) + bytes(59998) + jpeg[2:]


def _giant_jp2k(width: int, height: int) -> bytes:
    """A JPEG 2000 stream whose header claims 60,000 x 60,000 pixels in one tile."""
    data = bytearray(imagecodecs.jpeg2k_encode(tissue_picture(width, height), codecformat="j2k", level=40))
    at = data.index(b"\xff\x51")
    struct.pack_into(">II", data, at + 6, 60000, 60000)
    struct.pack_into(">II", data, at + 22, 60000, 60000)
    return bytes(data)


@mutation
def jpeg_tables(path: Path, *, how: str, ifds: list[str] | None = None) -> None:
    """The tables that the tiles of a directory share."""

    def act(tiff: TiffEditor) -> None:
        for ifd in ifds or ["0", "1", "2"]:
            entry = tiff.entry(ifd, "JPEGTables")
            place = tiff.value_place(tiff.offset(ifd), entry)
            tables = bytes(tiff.data[place : place + entry.count])
            other = {
                "empty": lambda: b"\xff\xd8\xff\xd9",
                "zeros": lambda tables=tables: bytes(len(tables)),
                "cut": lambda tables=tables: tables[: len(tables) // 2],
                "without start": lambda tables=tables: tables[2:],
                "without end": lambda tables=tables: tables[:-2],
                "with jfif": lambda tables=tables: (
                    tables[:2] + b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0" + tables[2:]
                ),
                "huge": lambda tables=tables: tables[:-2] + b"\xff\xfe\xff\xff" + bytes(65533) + tables[-2:],
                "bad huffman": lambda tables=tables: _bad_huffman(tables),
            }[how]()
            tiff.set_tag(ifd, "JPEGTables", other, type="UNDEFINED")

    _edit(path, act)


def _bad_huffman(tables: bytes) -> bytes:
    at = tables.index(b"\xff\xc4") + 5
    return tables[:at] + b"\xff" * 16 + tables[at + 16 :]


@mutation
def level_of_another_picture(path: Path, *, ifd: str, tiles: list[int]) -> None:
    """Tiles of a reduced level that are good JPEG of something else, as some scanners write at the edge."""

    def act(tiff: TiffEditor) -> None:
        side = 128
        other = Image.fromarray(255 - tissue_picture(side, side, seed=5))
        import io

        for number in tiles:
            out = io.BytesIO()
            rgb = np.asarray(other)
            jpeg = imagecodecs.jpeg_encode(rgb, level=90, outcolorspace=_jpeg_colours(tiff, ifd), subsampling="444")
            out.write(jpeg)
            tiff.place_segment(ifd, number, out.getvalue())

    _edit(path, act)


def _jpeg_colours(tiff: TiffEditor, ifd: str) -> str:
    return "rgb" if tiff.values(ifd, "Photometric")[0] == 2 else "ycbcr"


@mutation
def far_tile(path: Path, *, tiles: list[int], place: int, ifd: str = "0") -> None:
    """Tiles moved far behind everything else, with a hole before them that takes no room on the disk."""
    tiff = TiffEditor(path.read_bytes())
    moved = []
    for number in tiles:
        offset, length = tiff.segment(ifd, number)
        moved.append(bytes(tiff.data[offset : offset + length]))
        tiff.data[offset : offset + length] = bytes(length)
        tiff.set_value(ifd, tiff.segment_tags(ifd)[0], number, place + sum(map(len, moved[:-1])))
    with path.open("wb") as file:
        file.write(tiff.data)
        file.seek(place)
        file.write(b"".join(moved))


@mutation
def shrunk_tile_list(path: Path, *, missing: int, ifd: str = "0") -> None:
    """The lists of places and lengths are shorter than the picture needs."""

    def act(tiff: TiffEditor) -> None:
        for tag in tiff.segment_tags(ifd):
            tiff.edit_entry(ifd, tag, count=tiff.entry(ifd, tag).count - missing)

    _edit(path, act)


@mutation
def pixel_bomb(path: Path, *, width: int, height: int, tile: int = 256, compression: str = "deflate") -> None:
    """A TIFF of all-alike tiles that share their bytes: a small file that claims a large picture."""
    blank = np.full((tile, tile, 3), 230, np.uint8)
    if compression == "jpeg":
        data, number = imagecodecs.jpeg_encode(blank, level=75, outcolorspace="ycbcr"), 7
    elif compression == "zstd":
        data, number = imagecodecs.zstd_encode(blank.tobytes()), 50000
    else:
        data, number = zlib.compress(blank.tobytes(), 9), 8
    count = -(-width // tile) * -(-height // tile)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0)
    body = bytearray(head) + data
    body += bytes(-len(body) % 8)
    offsets_at = len(body)
    body += struct.pack("<Q", len(head)) * count
    counts_at = len(body)
    body += struct.pack("<I", len(data)) * count
    body += bytes(-len(body) % 8)
    photometric = 6 if compression == "jpeg" else 2
    inline = struct.pack("<HHHH", 8, 8, 8, 0)
    entries = [
        (256, 4, 1, struct.pack("<Q", width)), (257, 4, 1, struct.pack("<Q", height)), (258, 3, 3, inline),
        (259, 3, 1, struct.pack("<Q", number)), (262, 3, 1, struct.pack("<Q", photometric)),
        (277, 3, 1, struct.pack("<Q", 3)), (284, 3, 1, struct.pack("<Q", 1)), (322, 4, 1, struct.pack("<Q", tile)),
        (323, 4, 1, struct.pack("<Q", tile)), (324, 16, count, struct.pack("<Q", offsets_at)),
        (325, 4, count, struct.pack("<Q", counts_at)),
    ]  # fmt: skip
    struct.pack_into("<Q", body, 8, len(body))
    body += struct.pack("<Q", len(entries)) + b"".join(struct.pack("<HHQ8s", *entry) for entry in entries) + bytes(8)
    path.write_bytes(bytes(body))


@mutation
def strip_bomb(path: Path, *, side: int, samples: int = 3) -> None:
    """One deflate strip of side x side pixels."""
    import tifffile

    bomb = zlib.compress(bytes(side * side * samples), 9)
    tifffile.imwrite(path, iter([bomb]), shape=(side, side, samples), dtype=np.uint8, photometric="rgb",
                     compression="adobe_deflate", rowsperstrip=side, metadata=None)  # fmt: skip


# --- descriptions -----------------------------------------------------------------------------------------
@mutation
def description(path: Path, *, text: str, ifd: str = "0") -> None:
    _edit(path, lambda tiff: tiff.set_tag(ifd, "ImageDescription", text))


@mutation
def change_description(path: Path, *, find: str, by: str, ifd: str = "0") -> None:
    """A piece of the ImageDescription by another one."""

    def act(tiff: TiffEditor) -> None:
        entry = tiff.entry(ifd, "ImageDescription")
        place = tiff.value_place(tiff.offset(ifd), entry)
        said = bytes(tiff.data[place : place + entry.count]).rstrip(b"\0")
        if find.encode() not in said:
            raise ValueError(f"the description does not hold {find!r}")
        tiff.set_tag(ifd, "ImageDescription", said.replace(find.encode(), by.encode()) + b"\0", type="ASCII")

    _edit(path, act)


@mutation
def ome_scale(path: Path, *, x: str = "0.5", y: str = "0.5", unit: str = "µm") -> None:
    _edit(path, lambda tiff: tiff.set_tag("0", "ImageDescription", bases.ome_xml(x, y, unit), type="ASCII"))


@mutation
def description_of_size(path: Path, *, size: int, ifd: str = "0", start: str = "") -> None:
    _edit(path, lambda tiff: tiff.set_tag(ifd, "ImageDescription", start + "x" * size))


@mutation
def icc(path: Path, *, how: str) -> None:
    """The colour profile."""
    good = bases.srgb()
    data = {
        "text": b"no profile",
        "zeros": bytes(400),
        "five megabytes": good + bytes(5 << 20),
        "hundred megabytes": bytes(100 << 20),
        "cut": good[: len(good) // 2],
        "giant count": good[:128] + b"\xff\xff\xff\xff" + good[132:],
        "good": good,
        "wrong signature": good[:36] + b"xxxx" + good[40:],
    }[how]
    _edit(path, lambda tiff: tiff.set_tag("0", "ICCProfile", data, type="UNDEFINED"))


# --- whole files --------------------------------------------------------------------------------------------
@mutation
def rename(path: Path, *, name: str) -> Path:
    target = path.with_name(name)
    path.rename(target)
    return target


@mutation
def text(path: Path, *, text: str, times: int = 1) -> None:
    path.write_bytes((text * times).encode("utf-8"))


@mutation
def content(path: Path, *, hex: str, size: int = 0) -> None:
    """Bytes, filled up with zeros to `size`."""
    path.write_bytes(bytes.fromhex(hex).ljust(size, b"\0"))


@mutation
def random_bytes(path: Path, *, seed: int, size: int) -> None:
    path.write_bytes(random.Random(seed).randbytes(size))


@mutation
def zipped(path: Path, *, name: str = "slide.svs") -> None:
    """The slide inside a zip that still has the slide's name."""
    inside = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, inside)


@mutation
def png_bomb(path: Path, *, side: int) -> None:
    """A PNG whose header claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10 << 20), 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@mutation
def remove(path: Path, *, file: str) -> None:
    """A companion file or folder is not sent along."""
    target = path / file if path.is_dir() else path.parent / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()


@mutation
def add_file(path: Path, *, file: str, text: str = "", hex: str = "", copy_of: str = "") -> None:
    folder = path if path.is_dir() else path.parent
    if copy_of:
        shutil.copy(folder / copy_of, folder / file)
    else:
        (folder / file).write_bytes(text.encode() or bytes.fromhex(hex))


@mutation
def empty_folder(path: Path) -> Path:
    folder = path.with_name("folder")
    folder.mkdir()
    return folder


@mutation
def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@mutation
def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("not there.svs"))


@mutation
def linked(path: Path) -> Path:
    target = path.with_name("link" + path.suffix)
    target.symlink_to(path)
    return target


@mutation
def unreadable(path: Path) -> None:
    path.chmod(0)


# --- DICOM --------------------------------------------------------------------------------------------------
@mutation
def dicom(
    path: Path,
    *,
    change: dict[str, list[Any]] | None = None,
    drop: list[str] | None = None,
    encapsulated: bool = True,
    level: int = 0,
    **options: Any,
) -> None:
    """The instance written anew with elements changed ("00280100" = ["US", 16]) or left out, or its frames wrong."""
    wanted: dict[int, tuple[str, Any] | None] = {int(tag, 16): None for tag in drop or []}
    wanted |= {int(tag, 16): (said[0], said[1]) for tag, said in (change or {}).items()}
    whole = bases.picture()
    rgb = whole
    for _ in range(level):
        rgb = bases.halved(rgb)
    target = path / f"level-{level}.dcm" if path.is_dir() else path
    dicom_files.write_instance(
        target, rgb, full=whole, number=level, encapsulated=encapsulated, change=wanted, **options
    )


# --- MIRAX ----------------------------------------------------------------------------------------------------
@mutation
def mrxs_index(path: Path, *, level: int, image: int, field: str, value: int) -> None:
    """One number of a record of Index.dat: "image", "offset", "length" or "file"."""
    target = path.with_suffix("") / "Index.dat"
    data = bytearray(target.read_bytes())
    root = 5 + len(vendor_files.MRXS_ID)
    pointers = struct.unpack_from("<i", data, root)[0]
    page = struct.unpack_from("<i", data, pointers + 4 * level)[0]
    place = page + 16 + 16 * image + 4 * ["image", "offset", "length", "file"].index(field)
    struct.pack_into("<i", data, place, value)
    target.write_bytes(bytes(data))
