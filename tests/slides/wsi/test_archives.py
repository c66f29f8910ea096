"""Zip archives: what harms is refused in words before or while it is unpacked, with nothing written outside."""

import io
import resource
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from slides.wsi import archives, sandbox
from slides.wsi.archives import Member
from slides.wsi.errors import RefusalCode, SlideRefused
from tests.slides.made_folders import mirax_files, zipped

ROOM = 1 << 40
MIB = 1 << 20


def unpack(data: bytes, folder: Path, *, room: int = ROOM, free: int = ROOM) -> list[Member]:
    """In the child, as the worker does."""
    (folder / "sent.zip").write_bytes(data)
    (folder / "out").mkdir()
    return sandbox.unpack(folder / "sent.zip", folder / "out", room_bytes=room, free_bytes=free)


def entry(name: str, **facts: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def archive_of(*entries: tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data, method)
    return buffer.getvalue()


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Every header with the signature changed at `offset`."""
    out = bytearray(data)
    at = out.find(signature)
    while at >= 0:
        out[at + offset : at + offset + len(value)] = value
        at = out.find(signature, at + 4)
    return bytes(out)


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def encrypted() -> bytes:
    return patched(patched(zipped({"a.svs": b"x" * 99}), LOCAL, 6, b"\x01\x00"), CENTRAL, 8, b"\x01\x00")


def packed_by(method: int) -> bytes:
    value = struct.pack("<H", method)
    return patched(patched(zipped({"a.svs": b"x" * 99}), LOCAL, 8, value), CENTRAL, 10, value)


def deflate_bomb(mib: int = 64) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.svs", "w") as member:
        for _ in range(mib):
            member.write(bytes(MIB))
    return buffer.getvalue()


def forged_size() -> bytes:
    """A deflate bomb that claims to unpack to little."""
    claimed = struct.pack("<I", 10 * MIB)
    return patched(patched(deflate_bomb(), LOCAL, 22, claimed), CENTRAL, 24, claimed)


def forged_stored_size() -> bytes:
    """Says in its list to hold 100 MiB where it has one."""
    claimed = struct.pack("<I", 100 * MIB)
    return patched(zipped({"a.svs": bytes(MIB)}), CENTRAL, 24, claimed)


def overlapping() -> bytes:
    """Two entries of the list name one and the same member."""
    data = zipped({"a.svs": b"x" * 5000, "b.svs": b"y" * 5000})
    second = data.rfind(CENTRAL)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


def spoilt() -> bytes:
    return zipped({"a.svs": b"x" * 5000}).replace(b"xxxx", b"xxxy", 1)


def many(count: int) -> bytes:
    return zipped({f"{number}.svs": b"" for number in range(count)})


def claims_many() -> bytes:
    return patched(zipped({"a.svs": b"x"}), END, 8, struct.pack("<HH", 60_000, 60_000))


def huge_directory() -> bytes:
    return patched(zipped({"a.svs": b"x"}), END, 12, struct.pack("<I", 3 << 30))


HARMFUL: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name that climbs": (lambda: zipped({"../../etc/passwd.svs": b"x"}), "leads out of it"),
    "a name that climbs in the middle": (lambda: zipped({"a/../../b.svs": b"x"}), "leads out of it"),
    "a name that climbs with back slashes": (lambda: zipped({"..\\..\\b.svs": b"x"}), "leads out of it"),
    "an absolute name": (lambda: zipped({"/etc/cron.d/a.svs": b"x"}), "leads out of it"),
    "a drive": (lambda: zipped({"C:\\Windows\\a.svs": b"x"}), "leads out of it"),
    "a name that climbs hidden by a zero": (
        lambda: zipped({"a.svs/x": b"x"}).replace(b"a.svs/x", b"a\0/../x"),
        "leads out of it",
    ),
    "a name with a zero": (lambda: zipped({"ab.svs": b"x"}).replace(b"ab.svs", b"a\0.svs"), "cannot be used"),
    "a name with a line break": (lambda: zipped({"a\n.svs": b"x"}), "cannot be used"),
    "a name too long": (lambda: zipped({"a" * 301 + ".svs": b"x"}), "cannot be used"),
    "a symbolic link": (
        lambda: archive_of(
            (entry("a.svs", create_system=3, external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc/passwd")
        ),
        "a link or a device",
    ),
    "a pipe": (
        lambda: archive_of((entry("a.svs", create_system=3, external_attr=(stat.S_IFIFO | 0o666) << 16), b"")),
        "a link or a device",
    ),
    "a linked folder": (
        lambda: archive_of((entry("a/", create_system=3, external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc")),
        "a link or a device",
    ),
    "an archive by name": (lambda: zipped({"a/b.ZIP": b"x"}), "another archive"),
    "an archive by content": (lambda: zipped({"a.svs": zipped({"b.svs": b"x"})}), "another archive"),
    "a password": (encrypted, "encrypted"),
    "Deflate64": (lambda: packed_by(9), "Deflate64"),
    "an unknown method": (lambda: packed_by(77), "method 77"),
    "two of one name": (lambda: zipped({"a.svs": b"x", "A.SVS": b"y"}), "same name"),
    "too many members": (lambda: many(archives.MOST_MEMBERS + 1), "2,001 files"),
    "too many members claimed": (claims_many, "60,000 files"),
    "a list to fill the memory": (huge_directory, "files"),
    "a deflate bomb": (deflate_bomb, "more than 200 times"),
    "a deflate bomb that claims to be small": (forged_size, "damaged"),
    "a size that is not there": (forged_stored_size, "archive"),
    "members that overlap": (overlapping, "overlap"),
    "spoilt bytes": (spoilt, "damaged"),
    "no end": (lambda: zipped({"a.svs": b"x" * 5000})[:-30], "end is missing"),
    "a cut beginning": (lambda: zipped({"a.svs": b"x" * 5000, "b.svs": b"y" * 5000})[3000:], "damaged"),
    "no files": (lambda: zipped({}), "no files"),
    "litter alone": (lambda: zipped({"__MACOSX/._a.svs": b"x", ".DS_Store": b"y"}), "no files"),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_an_archive_that_harms_is_refused_in_words(case: str, tmp_path: Path) -> None:
    made, words = HARMFUL[case]
    (tmp_path / "sent.zip").write_bytes(made())
    (tmp_path / "out").mkdir()
    with pytest.raises(SlideRefused, match=words) as refused:
        archives.unpack(
            tmp_path / "sent.zip", tmp_path / "out", room_bytes=ROOM, free_bytes=ROOM, on_progress=lambda *_: None
        )
    assert refused.value.code == RefusalCode.BAD_ARCHIVE
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"sent.zip", "out"}
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written <= 11 * MIB, "a bomb must not fill the disk on its way to be refused"


@pytest.mark.parametrize("case", ["a name that climbs", "a symbolic link", "a deflate bomb that claims to be small"])
def test_the_child_passes_the_words_on(case: str, tmp_path: Path) -> None:
    made, words = HARMFUL[case]
    with pytest.raises(SlideRefused, match=words) as refused:
        unpack(made(), tmp_path)
    assert refused.value.code == RefusalCode.BAD_ARCHIVE


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """In this very process, where the peak can be read."""
    (tmp_path / "sent.zip").write_bytes(forged_size())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SlideRefused):
        archives.unpack(
            tmp_path / "sent.zip", tmp_path, room_bytes=ROOM, free_bytes=ROOM, on_progress=lambda stage, share: None
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_out_byte_for_byte_under_numbers(method: int, tmp_path: Path) -> None:
    files = mirax_files("Müller 1")
    members = unpack(zipped(files | {"__MACOSX/._x": b"?", "a/.hidden": b"?"}, method), tmp_path)
    assert {str(each.name): each.written_in(tmp_path / "out").read_bytes() for each in members} == files
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0000", "0001", "0002", "0003"]


def test_back_slashes_of_windows_are_folders(tmp_path: Path) -> None:
    [member] = unpack(zipped({"day\\a.svs": b"x"}), tmp_path)
    assert member.name == PurePosixPath("day/a.svs")


def test_an_archive_with_64_bit_sizes_and_data_descriptors_is_read(tmp_path: Path) -> None:
    """As a stream is packed: sizes and check sums after the data."""

    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece: bytes) -> int:  # type: ignore[override]
            self.data += piece
            return len(piece)

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a.svs", "w", force_zip64=True) as member:
        member.write(b"some bytes" * 1000)
    [found] = unpack(bytes(stream.data), tmp_path)
    assert found.written_in(tmp_path / "out").read_bytes() == b"some bytes" * 1000


def test_more_than_is_allowed_is_told_from_more_than_there_is_room_for(tmp_path: Path) -> None:
    for name, limits, code in (
        ("rule", {"room": 4000}, RefusalCode.TOO_LARGE),
        ("disk", {"free": 4000}, RefusalCode.NO_SPACE),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(SlideRefused) as refused:
            unpack(zipped({"a.svs": b"x" * 5000}), tmp_path / name, **limits)
        assert refused.value.code == code
        assert list((tmp_path / name / "out").iterdir()) == []


def test_what_the_child_says_of_a_member_is_not_taken_on_trust() -> None:
    for said in (
        {"name": "../a", "size": 1, "number": 0},
        {"name": "a", "size": -1, "number": 0},
        {"name": "a", "size": 1, "number": archives.MOST_MEMBERS},
        {"name": "", "size": 1, "number": 0},
    ):
        with pytest.raises((ValueError, SlideRefused)):
            Member.from_json(said)


def test_a_crc_is_checked_to_the_last_byte(tmp_path: Path) -> None:
    data = b"x" * 5000
    wrong = patched(zipped({"a.svs": data}), CENTRAL, 16, struct.pack("<I", zlib.crc32(data) ^ 1))
    with pytest.raises(SlideRefused, match="damaged"):
        unpack(wrong, tmp_path)
