"""Zip archives with slides in them: looked through before anything is written, then unpacked member by member.

Runs in the child. Standard library alone. Names in an archive are text: members are written under numbers, and what an
archive claims of itself (sizes, counts) is held against limits first and against the bytes that come out afterwards.
APPNOTE.TXT 6.3.10 of PKWARE.
"""

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from slides.wsi.errors import RefusalCode, SlideRefused

MOST_MEMBERS = 2000
LONGEST_NAME = 300
LARGEST_DIRECTORY_BYTES = 4 << 20
MOST_RATIO = 200  # unpacked to packed; slides are compressed already
FREE_RATIO_BYTES = 16 << 20  # so small a member may be packed as tightly as it likes
STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_ARCHIVE_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xfd7zXZ\0", b"\x1f\x8b\x08")
_ARCHIVE_SUFFIXES = {".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".cab", ".iso"}
_LITTER = re.compile(r"\..*|__macosx|thumbs\.db|desktop\.ini", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHOD_NAMES = {9: "Deflate64, as Windows writes for large files", 12: "bzip2", 14: "LZMA", 93: "Zstandard"}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PIECE_BYTES = 1 << 20
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_HEADER_BYTES = 30

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive. `number` names the file that it was written to."""

    name: PurePosixPath
    size: int
    number: int

    def to_json(self) -> dict[str, Any]:
        return {"name": str(self.name), "size": self.size, "number": self.number}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Member":
        """Raises ValueError, TypeError or KeyError for what the child could not have meant."""
        size, number = int(data["size"]), int(data["number"])
        name = checked_name(str(data["name"]))
        if size < 0 or not 0 <= number < MOST_MEMBERS or name is None:
            raise ValueError("an impossible member")
        return cls(name, size, number)

    def written_in(self, folder: Path) -> Path:
        return folder / f"{self.number:04}"


def is_archive(path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as file:
        return file.read(4) in STARTS


def unpack(path: Path, folder: Path, *, room_bytes: int, free_bytes: int, on_progress: OnProgress) -> list[Member]:
    """Write every member that could belong to a slide into `folder`. Raises SlideRefused before or while writing.

    `room_bytes`: how much the files may have together by rule; `free_bytes`: by what is left of the disk.
    """
    with path.open("rb") as file:
        _check_directory_size(file, path.stat().st_size)
        try:
            with zipfile.ZipFile(file) as archive:
                wanted = _looked_through(archive, room_bytes=room_bytes, free_bytes=free_bytes)
                return _written(archive, wanted, folder, on_progress)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
            raise _bad(f"is damaged or was cut off ({_first_line(error)}). Pack it again, or send it again") from error


def checked_name(raw: str) -> PurePosixPath | None:
    """The name of a member as a relative path of plain parts; None for what is no file of anybody's slide.

    Raises SlideRefused for names that lead outside of the archive or cannot be kept.
    """
    name = unicodedata.normalize("NFC", raw.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise _bad("holds a file whose name leads out of it. Such archives are not unpacked")
    if _FORBIDDEN.search(name) or len(name) > LONGEST_NAME or any(len(part.encode()) > 255 for part in parts):
        raise _bad("holds a file whose name cannot be used (too long, or with characters that cannot be printed)")
    if not parts or any(_LITTER.fullmatch(part) for part in parts):
        return None
    return PurePosixPath(*parts)


def _check_directory_size(file: IO[bytes], size: int) -> None:
    """The list of members is read whole into memory by zipfile: not if it is made to flood it."""
    tail_bytes = min(size, 22 + 0xFFFF)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise _bad("is not complete: its end is missing. Pack it again, or send it again")
    count, directory_bytes = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(_LOCATOR_64):
        file.seek(min(size, struct.unpack_from("<Q", tail, at - 12)[0]))
        end_64 = file.read(56)
        if not end_64.startswith(_END_64) or len(end_64) < 56:
            raise _bad("is damaged at its end. Pack it again, or send it again")
        count, directory_bytes = struct.unpack_from("<QQ", end_64, 32)
    if count > MOST_MEMBERS or directory_bytes > LARGEST_DIRECTORY_BYTES:
        raise _bad(f"holds {count:,} files; {MOST_MEMBERS:,} are allowed. Send each slide in an archive of its own")


def _looked_through(
    archive: zipfile.ZipFile, *, room_bytes: int, free_bytes: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise _bad(f"holds more than {MOST_MEMBERS:,} files. Send each slide in an archive of its own")
    _check_overlap(members, archive.start_dir)
    wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    for info in members:
        name = checked_name(info.orig_filename)
        _check_kind(info)
        if name is None or info.is_dir() or info.orig_filename.endswith(("/", "\\")):
            continue
        _check_packing(info, name)
        wanted.append((info, name))
    _check_twins([name for _, name in wanted])
    if not wanted:
        raise _bad("holds no files")
    whole = sum(info.file_size for info, _ in wanted)
    if whole > room_bytes:
        raise SlideRefused(
            RefusalCode.TOO_LARGE,
            f"The zip archive unpacks to {_gb(whole)}; {_gb(room_bytes)} are allowed here. Send fewer slides at once, "
            "delete slides that are not needed, or ask an administrator for more room.",
        )
    if whole > free_bytes:
        raise SlideRefused(RefusalCode.NO_SPACE, "")
    return wanted


def _check_kind(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _bad("holds a link or a device instead of a file. Pack the files themselves")
    if info.flag_bits & _ENCRYPTED:
        raise _bad("is encrypted. Pack it without a password")


def _check_packing(info: zipfile.ZipInfo, name: PurePosixPath) -> None:
    if info.compress_type not in _METHODS:
        how = _METHOD_NAMES.get(info.compress_type, f"method {info.compress_type}")
        raise _bad(
            f"is packed in a way that is not read here ({how}). Pack it without compression, or drop the folder itself"
        )
    if name.suffix.lower() in _ARCHIVE_SUFFIXES:
        raise _bad("holds another archive. Unpack that one first, and send what is in it")
    if info.file_size > FREE_RATIO_BYTES and info.file_size > MOST_RATIO * max(1, info.compress_size):
        raise _bad(f"holds a file that grows more than {MOST_RATIO} times when it is unpacked: no slide does that")


def _check_twins(names: Sequence[PurePosixPath]) -> None:
    if len({str(name).casefold() for name in names}) < len(names):
        raise _bad("holds two files of the same name")


def _check_overlap(members: Iterable[zipfile.ZipInfo], directory_start: int) -> None:
    """Members that share bytes are the trick of bombs that unpack to far more than they hold."""
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise _bad("holds files that overlap each other: it was made to do harm, or is damaged")
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
    if end > directory_start:
        raise _bad("is damaged or was cut off. Pack it again, or send it again")


def _written(
    archive: zipfile.ZipFile, wanted: list[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path, on_progress: OnProgress
) -> list[Member]:
    whole = max(1, sum(info.file_size for info, _ in wanted))
    done = 0
    members = []
    for number, (info, name) in enumerate(wanted):
        member = Member(name, info.file_size, number)
        with archive.open(info) as packed, member.written_in(folder).open("xb") as file:
            left = info.file_size
            while piece := packed.read(_PIECE_BYTES):
                if left == info.file_size and piece.startswith(_ARCHIVE_STARTS):
                    raise _bad("holds another archive. Unpack that one first, and send what is in it")
                left -= len(piece)
                if left < 0:
                    raise _bad("holds more than it says: it was made to do harm, or is damaged")
                file.write(piece)
                done += len(piece)
                on_progress("unpacking", done / whole)
        if left:
            raise _bad("holds less than it says. Pack it again, or send it again")
        members.append(member)
    return members


def _bad(words: str) -> SlideRefused:
    return SlideRefused(RefusalCode.BAD_ARCHIVE, f"The zip archive {words}.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _gb(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
