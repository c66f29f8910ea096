"""Changes to the structure of a TIFF or BigTIFF file, one directory at a time, without touching its pixels.

A changed directory is written anew at the end of the file and whatever pointed at the old one is pointed at it.
Directories are named by their place in file order ("0", "1"), SubIFDs by "0/1" (the second child of directory 0).
"""

import struct
from dataclasses import dataclass
from typing import Any

TAGS = {
    "NewSubfileType": 254, "ImageWidth": 256, "ImageLength": 257, "BitsPerSample": 258, "Compression": 259,
    "Photometric": 262, "ImageDescription": 270, "Make": 271, "Model": 272, "StripOffsets": 273, "Orientation": 274,
    "SamplesPerPixel": 277, "RowsPerStrip": 278, "StripByteCounts": 279, "XResolution": 282, "YResolution": 283,
    "PlanarConfig": 284, "ResolutionUnit": 296, "Software": 305, "TileWidth": 322, "TileLength": 323,
    "TileOffsets": 324, "TileByteCounts": 325, "SubIFDs": 330, "ExtraSamples": 338, "SampleFormat": 339,
    "JPEGTables": 347, "YCbCrSubSampling": 530, "ReferenceBlackWhite": 532, "XMP": 700, "ICCProfile": 34675,
}  # fmt: skip
TYPES = {"BYTE": 1, "ASCII": 2, "SHORT": 3, "LONG": 4, "RATIONAL": 5, "UNDEFINED": 7, "SLONG": 9, "SRATIONAL": 10,
         "FLOAT": 11, "DOUBLE": 12, "LONG8": 16, "NONSENSE": 99}  # fmt: skip
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 8: "h", 9: "i", 10: "i", 11: "f", 12: "d",
          13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_PAIRS = {5, 10}


def tag_number(name: str | int) -> int:
    return TAGS[name] if isinstance(name, str) else name


@dataclass
class Entry:
    """`field` is the value or its place, as it stands in the directory."""

    tag: int
    type: int
    count: int
    field: bytes


class TiffEditor:
    """The file as bytes that grow at the end. Only files that are whole can be edited."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self.count_code, self.count_size = ("Q", 8) if self.big else ("H", 2)
        self.entry_code, self.entry_size = ("HHQ", 20) if self.big else ("HHI", 12)
        self.place_code, self.place_size = ("Q", 8) if self.big else ("I", 4)

    def unpack(self, code: str, place: int) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + code, self.data, place)

    def pack(self, code: str, *values: Any) -> bytes:
        return struct.pack(self.order + code, *values)

    # -- where things are ----------------------------------------------------------------------------
    def link(self, ifd: str) -> int:
        """Where the number stands that says where this directory is."""
        first, _, rest = ifd.partition("/")
        link = 8 if self.big else 4
        for _ in range(int(first)):
            link = self.next_link(self.unpack(self.place_code, link)[0])
        if rest:
            parent = self.unpack(self.place_code, link)[0]
            entry = next(each for each in self.entries(parent) if each.tag == TAGS["SubIFDs"])
            place = self.value_place(parent, entry)
            return place + int(rest) * struct.calcsize(self.order + _CODES[entry.type])
        return link

    def offset(self, ifd: str) -> int:
        return int(self.unpack(self.place_code, self.link(ifd))[0])

    def next_link(self, offset: int) -> int:
        return offset + self.count_size + int(self.unpack(self.count_code, offset)[0]) * self.entry_size

    def entries(self, offset: int) -> list[Entry]:
        count = self.unpack(self.count_code, offset)[0]
        found = []
        for number in range(count):
            place = offset + self.count_size + number * self.entry_size
            tag, kind, values = self.unpack(self.entry_code, place)
            end = place + self.entry_size
            found.append(Entry(tag, kind, values, bytes(self.data[end - self.place_size : end])))
        return found

    def entry(self, ifd: str, tag: str | int) -> Entry:
        return next(each for each in self.entries(self.offset(ifd)) if each.tag == tag_number(tag))

    def value_place(self, offset: int, entry: Entry) -> int:
        """Where the values of an entry of the directory at `offset` stand."""
        if self.length(entry) > self.place_size:
            return int(struct.unpack(self.order + self.place_code, entry.field)[0])
        number = [each.tag for each in self.entries(offset)].index(entry.tag)
        return offset + self.count_size + (number + 1) * self.entry_size - self.place_size

    def length(self, entry: Entry) -> int:
        return entry.count * struct.calcsize(_CODES[entry.type]) * (2 if entry.type in _PAIRS else 1)

    def values(self, ifd: str, tag: str | int) -> list[Any]:
        entry = self.entry(ifd, tag)
        place = self.value_place(self.offset(ifd), entry)
        count = entry.count * (2 if entry.type in _PAIRS else 1)
        return list(self.unpack(f"{count}{_CODES[entry.type]}", place))

    # -- changes ---------------------------------------------------------------------------------------
    def put_directory(self, ifd: str, entries: list[Entry], following: int | None = None, *, sort: bool = True) -> None:
        link, old = self.link(ifd), self.offset(ifd)
        if following is None:
            following = self.unpack(self.place_code, self.next_link(old))[0]
        if sort:
            entries = sorted(entries, key=lambda each: each.tag)
        self.align()
        place = len(self.data)
        self.data += self.pack(self.count_code, len(entries))
        for each in entries:
            self.data += self.pack(self.entry_code, each.tag, each.type, each.count) + each.field
        self.data += self.pack(self.place_code, following)
        self.data[link : link + self.place_size] = self.pack(self.place_code, place)

    def align(self) -> None:
        self.data += bytes(-len(self.data) % 8)

    def set_tag(
        self, ifd: str, tag: str | int, values: Any, *, type: str | None = None, count: int | None = None
    ) -> None:
        """Numbers, a text, or bytes; `count` lies about how many there are."""
        number = tag_number(tag)
        offset = self.offset(ifd)
        kept = [each for each in self.entries(offset) if each.tag != number]
        old = next((each for each in self.entries(offset) if each.tag == number), None)
        if isinstance(values, str):
            values, kind = values.encode("utf-8") + b"\0", TYPES[type or "ASCII"]
        else:
            kind = TYPES[type] if type else old.type if old else TYPES["LONG"]
        if isinstance(values, bytes):
            raw, said = values, len(values)
        else:
            listed = values if isinstance(values, list) else [values]
            raw = self.pack(f"{len(listed)}{_CODES.get(kind, 'I')}", *listed)
            said = len(listed) // (2 if kind in _PAIRS else 1)
        if len(raw) > self.place_size:
            self.align()
            place = len(self.data)
            self.data += raw
            raw = self.pack(self.place_code, place)
        field = raw.ljust(self.place_size, b"\0")
        self.put_directory(ifd, [*kept, Entry(number, kind, said if count is None else count, field)])

    def edit_entry(
        self, ifd: str, tag: str | int, *, type: str | None = None, count: int | None = None, place: int | None = None
    ) -> None:
        """The words of a directory entry alone: its type, count, or where it says its values are."""
        number, entries = tag_number(tag), self.entries(self.offset(ifd))
        for each in entries:
            if each.tag == number:
                each.type = TYPES[type] if type else each.type
                each.count = each.count if count is None else count
                each.field = each.field if place is None else self.pack(self.place_code, place)
        self.put_directory(ifd, entries)

    def drop_tag(self, ifd: str, tag: str | int) -> None:
        number, entries = tag_number(tag), self.entries(self.offset(ifd))
        kept = [each for each in entries if each.tag != number]
        if len(kept) == len(entries):
            raise ValueError(f"directory {ifd} has no tag {tag}")
        self.put_directory(ifd, kept)

    def set_next(self, ifd: str, to: int) -> None:
        place = self.next_link(self.offset(ifd))
        self.data[place : place + self.place_size] = self.pack(self.place_code, to)

    def set_value(self, ifd: str, tag: str | int, number: int, value: int) -> None:
        """One of many values, in place."""
        entry = self.entry(ifd, tag)
        code = self.order + _CODES[entry.type]
        place = self.value_place(self.offset(ifd), entry) + number * struct.calcsize(code)
        struct.pack_into(code, self.data, place, value)

    # -- tiles -----------------------------------------------------------------------------------------
    def segment_tags(self, ifd: str) -> tuple[str, str]:
        tiled = any(each.tag == TAGS["TileOffsets"] for each in self.entries(self.offset(ifd)))
        return ("TileOffsets", "TileByteCounts") if tiled else ("StripOffsets", "StripByteCounts")

    def segment(self, ifd: str, number: int) -> tuple[int, int]:
        offsets, counts = self.segment_tags(ifd)
        return self.values(ifd, offsets)[number], self.values(ifd, counts)[number]

    def place_segment(self, ifd: str, number: int, data: bytes) -> None:
        """Other bytes for one tile or strip, at the end of the file."""
        offsets, counts = self.segment_tags(ifd)
        self.align()
        place = len(self.data)
        self.data += data
        self.set_value(ifd, offsets, number, place)
        self.set_value(ifd, counts, number, len(data))
