"""DICOM whole slide images, written byte by byte so that every element can be wrong on purpose.

Explicit VR little endian; frames are JPEG in fragments with a basic offset table, or uncompressed. PS3.3 A.32.8, PS3.5.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from ..wsi.made_slides import Rgb, halved

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE, EXPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"
_LONG = {"OB", "OW", "SQ", "UN", "UT"}
SIDE = 128


def element(tag: int, representation: str, value: bytes, *, length: int | None = None) -> bytes:
    value = value + (b"\0" if representation in ("UI", "OB") else b" ") * (len(value) % 2)
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, representation.encode())
    head += struct.pack("<HI", 0, size) if representation in _LONG else struct.pack("<H", size)
    return head + value


def encoded(representation: str, value: Any) -> bytes:
    if representation == "SQ":
        return b"".join(_item(item) for item in value)
    if representation in ("US", "UL", "FL", "FD"):
        code = {"US": "H", "UL": "I", "FL": "f", "FD": "d"}[representation]
        listed = value if isinstance(value, list) else [value]
        return struct.pack(f"<{len(listed)}{code}", *listed)
    return value if isinstance(value, bytes) else str(value).encode()


def _item(elements: Mapping[int, tuple[str, Any]]) -> bytes:
    body = dataset(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def dataset(elements: Mapping[int, tuple[str, Any]]) -> bytes:
    return b"".join(element(tag, vr, encoded(vr, value)) for tag, (vr, value) in sorted(elements.items()))


def facts_of(rgb: Rgb, full: Rgb, *, number: int, encapsulated: bool, frames: int) -> dict[int, tuple[str, Any]]:
    height, width = rgb.shape[:2]
    spacing = 0.0005 * full.shape[1] / width
    shared = {
        0x00289110: ("SQ", [{0x00280030: ("DS", f"{spacing:.6g}\\{spacing:.6g}")}]),
    }  # fmt: skip
    resampled = "RESAMPLED" if number else "NONE"
    return {
        0x00080008: ("CS", f"{'DERIVED' if number else 'ORIGINAL'}\\PRIMARY\\VOLUME\\{resampled}"),
        0x00080016: ("UI", WHOLE_SLIDE),
        0x00080018: ("UI", f"1.2.826.0.1.3680043.8.498.1.{number}"),
        0x00080060: ("CS", "SM"),
        0x00080070: ("LO", "Made"),
        0x0020000D: ("UI", "1.2.826.0.1.3680043.8.498.2"),
        0x0020000E: ("UI", "1.2.826.0.1.3680043.8.498.3"),
        0x00200052: ("UI", "1.2.826.0.1.3680043.8.498.4"),
        0x00209311: ("CS", "TILED_FULL"),
        0x00280002: ("US", 3),
        0x00280004: ("CS", "YBR_FULL_422" if encapsulated else "RGB"),
        0x00280006: ("US", 0),
        0x00280008: ("IS", str(frames)),
        0x00280010: ("US", SIDE),
        0x00280011: ("US", SIDE),
        0x00280100: ("US", 8),
        0x00280101: ("US", 8),
        0x00280102: ("US", 7),
        0x00280103: ("US", 0),
        0x00480006: ("UL", width),
        0x00480007: ("UL", height),
        0x00480105: ("SQ", [{0x00220112: ("SQ", []), 0x00480112: ("DS", "20")}]),
        0x52009229: ("SQ", [shared]),
    }


def tiles_of(rgb: Rgb) -> list[Rgb]:
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % SIDE), (0, -width % SIDE), (0, 0)), mode="edge")
    return [
        np.ascontiguousarray(padded[top : top + SIDE, left : left + SIDE])
        for top in range(0, padded.shape[0], SIDE)
        for left in range(0, padded.shape[1], SIDE)
    ]


def fragments(frames: list[bytes], *, offset_table: bool = True) -> bytes:
    padded = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    places = np.cumsum([0, *(len(frame) + 8 for frame in padded)])[:-1]
    table = struct.pack(f"<{len(places)}I", *places) if offset_table else b""
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in (table, *padded)]
    return b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def write_instance(
    path: Path,
    rgb: Rgb,
    *,
    full: Rgb | None = None,
    number: int = 0,
    encapsulated: bool = True,
    offset_table: bool = True,
    syntax: str | None = None,
    change: Mapping[int, tuple[str, Any] | None] | None = None,
    drop_frames: int = 0,
    spoil_frame: int | None = None,
) -> Path:
    """One level. `change`: elements put in other words, None for those left out."""
    tiles = tiles_of(rgb)
    facts: dict[int, tuple[str, Any]] = facts_of(
        rgb, rgb if full is None else full, number=number, encapsulated=encapsulated, frames=len(tiles)
    )
    for tag, said in (change or {}).items():
        facts.pop(tag, None)
        if said is not None:
            facts[tag] = said
    if encapsulated:
        jpegs = [
            bytes(simplejpeg.encode_jpeg(tile, quality=92, colorspace="RGB", colorsubsampling="422")) for tile in tiles
        ]
        jpegs = jpegs[: len(jpegs) - drop_frames]
        if spoil_frame is not None:
            jpegs[spoil_frame] = b"\0" * len(jpegs[spoil_frame])
        pixels = element(0x7FE00010, "OB", fragments(jpegs, offset_table=offset_table), length=0xFFFFFFFF)
    else:
        pixels = element(0x7FE00010, "OB", b"".join(tile.tobytes() for tile in tiles[: len(tiles) - drop_frames]))
    meta = dataset(
        {
            0x00020001: ("OB", b"\0\1"),
            0x00020002: ("UI", WHOLE_SLIDE),
            0x00020003: ("UI", f"1.2.826.0.1.3680043.8.498.1.{number}"),
            0x00020010: ("UI", syntax or (JPEG_BASELINE if encapsulated else EXPLICIT)),
            0x00020012: ("UI", "1.2.826.0.1.3680043.8.498"),
        }
    )
    meta = element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta
    path.write_bytes(bytes(128) + b"DICM" + meta + dataset(facts) + pixels)
    return path


def write_series(folder: Path, rgb: Rgb, *, levels: int) -> Path:
    folder.mkdir()
    level = rgb
    for number in range(levels):
        write_instance(folder / f"level-{number}.dcm", level, full=rgb, number=number)
        level = halved(level)
    return folder
