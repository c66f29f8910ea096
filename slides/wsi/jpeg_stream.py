"""JPEG streams as TIFF cuts them up: shared tables in one place, abbreviated tiles in another.

A tile is made whole again by putting a header before it. Browsers and libjpeg guess the colours from the
markers: RGB data without a marker, or with JFIF beside it, is shown as if it were YCbCr (pink slides), so RGB gets
an Adobe APP14 marker with transform 0 and no JFIF. ITU T.81 annex B; Adobe TN 5116.
"""

from dataclasses import dataclass

SOI = b"\xff\xd8"
EOI = b"\xff\xd9"
_APP0, _APP15, _COM, _SOS = 0xE0, 0xEF, 0xFE, 0xDA
_BASELINE, _EXTENDED = 0xC0, 0xC1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
APP14_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """What the headers of a stream say.

    `body_start`: first byte after SOI and any APPn or COM markers; `frame_end`: first byte after the frame header.
    """

    width: int
    height: int
    components: int
    bits: int
    baseline: bool
    body_start: int
    frame_end: int


class NotJpeg(ValueError):
    """The bytes are not a JPEG stream, or its headers are broken."""


def parse_frame(data: bytes) -> JpegFrame:
    """Headers of a (possibly abbreviated) stream up to its first scan. Raises NotJpeg."""
    if data[:2] != SOI:
        raise NotJpeg("no start marker")
    body_start = None
    for marker, start, end in _segments(data):
        if not (_APP0 <= marker <= _APP15 or marker == _COM) and body_start is None:
            body_start = start
        if marker in _FRAMES:
            if end - start < 10:
                raise NotJpeg("short frame header")
            bits, height, width, components = (
                data[start + 4],
                int.from_bytes(data[start + 5 : start + 7], "big"),
                int.from_bytes(data[start + 7 : start + 9], "big"),
                data[start + 9],
            )
            return JpegFrame(width, height, components, bits, marker == _BASELINE, body_start or start, end)
        if marker == _SOS:
            break
    raise NotJpeg("no frame header before the picture data")


def splice_header(tables: bytes, *, rgb: bool) -> bytes:
    """What stands before the body of each tile: start, colour marker for RGB, the shared tables without JFIF."""
    return SOI + (APP14_RGB if rgb else b"") + _table_segments(tables)


def _table_segments(tables: bytes) -> bytes:
    if not tables:
        return b""
    if tables[:2] != SOI:
        raise NotJpeg("the shared JPEG tables are broken")
    kept = []
    for marker, start, end in _segments(tables):
        if not (_APP0 <= marker <= _APP15 or marker == _COM):
            kept.append(tables[start:end])
    return b"".join(kept)


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of the header segments after SOI, up to and with the start of the first scan or EOI."""
    segments = []
    position = 2
    while position + 2 <= len(data):
        if data[position] != 0xFF:
            raise NotJpeg(f"byte {position} is not a marker")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD9:
            break
        if position + 4 > len(data):
            raise NotJpeg("cut inside a header")
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data) or end < position + 4:
            raise NotJpeg("cut inside a header")
        segments.append((marker, position, end))
        if marker == _SOS:
            break
        position = end
    return segments


_TABLES = {0xDB, 0xC4}  # quantisation, Huffman


def split_tables(jpeg: bytes) -> tuple[bytes, bytes]:
    """A whole JPEG as (its tables as a stream of their own, the abbreviated stream without tables, APPn and COM)."""
    tables, kept = [], []
    end = 2
    for marker, start, end in _segments(jpeg):
        if marker in _TABLES:
            tables.append(jpeg[start:end])
        elif not (_APP0 <= marker <= _APP15 or marker == _COM):
            kept.append(jpeg[start:end])
    return SOI + b"".join(tables) + EOI, SOI + b"".join(kept) + jpeg[end:]
