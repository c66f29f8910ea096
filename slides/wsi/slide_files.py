"""Which files belong to a slide: most are one file, some need a folder or the files beside them. Standard library alone.

A slide is named by its entry file, the one that readers open. Companions are found by the rules of each format:
MIRAX keeps them in a folder of the entry's name, Hamamatsu lists them in the entry, DICOM has one series in one folder.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from slides.wsi import dicom

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm", ".qptiff",
)  # fmt: skip
NEEDS_OTHER_FILES = {
    ".mrxs": "its folder of the same name",
    ".vms": "the picture files that it lists",
    ".vmu": "the picture files that it lists",
}
DICOM_SUFFIXES = (".dcm", ".dicom", "")
_WITH_FOLDER_OF_SAME_NAME = (".mrxs",)
_LISTS_ITS_FILES = (".vms", ".vmu", ".ndpis")
_LARGEST_LIST_BYTES = 1 << 20
_PIECE_BYTES = 8 << 20
_NAME = TypeVar("_NAME", Path, PurePosixPath)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Tells changed files from the same without reading them. `mtime_ns` of a slide of several files stands for all
    of their names, sizes and times at once."""

    size_bytes: int
    mtime_ns: int


def files_of(path: Path) -> list[Path]:
    """The entry file (or folder of a DICOM series) and its companions; the child is shown these and nothing else."""
    suffix = path.suffix.lower()
    if suffix in _WITH_FOLDER_OF_SAME_NAME:
        folder = path.with_suffix("")
        return [path, folder] if folder.is_dir() else [path]
    if suffix in _LISTS_ITS_FILES and path.is_file():
        listed = (path.with_name(name) for name in sorted(_names_listed_in(path)))
        return [path, *(each for each in listed if each != path and each.is_file())]
    if suffix in DICOM_SUFFIXES and path.is_file() and (series := dicom.series_of(path)):
        beside = (each for each in path.parent.iterdir() if each != path and each.suffix.lower() in DICOM_SUFFIXES)
        return [path, *sorted(each for each in beside if each.is_file() and dicom.series_of(each) == series)]
    return [path]


def slides_among(files: Mapping[_NAME, Path]) -> list[tuple[_NAME, list[_NAME]]]:
    """(entry, companions) of each slide among `files` (name: where it lies), in the order of their names.

    Files that belong to no slide are left out.
    """
    names = sorted(files)
    inside: dict[str, list[_NAME]] = {}
    for name in names:
        inside.setdefault(str(name.parent).casefold(), []).append(name)
    found: dict[_NAME, list[_NAME]] = {}
    for name in names:
        if name.suffix.lower() in _WITH_FOLDER_OF_SAME_NAME:
            found[name] = inside.get(str(name.with_suffix("")).casefold(), [])
        elif name.suffix.lower() in _LISTS_ITS_FILES:
            listed = _names_listed_in(files[name])
            beside = inside[str(name.parent).casefold()]
            found[name] = [each for each in beside if each.parent == name.parent and each.name in listed]
    taken = {each for companions in found.values() for each in companions} | set(found)
    series: dict[tuple[_NAME, str], list[_NAME]] = {}
    for name in names:
        if name in taken:
            continue
        number = dicom.series_of(files[name]) if name.suffix.lower() in DICOM_SUFFIXES else ""
        if number:
            series.setdefault((name.parent, number), []).append(name)
        elif name.suffix.lower() in SLIDE_SUFFIXES:
            found[name] = []
    found |= {members[0]: members[1:] for members in series.values()}
    return sorted(found.items())


def stamp_of(path: Path) -> Stamp:
    """Of a slide, all of its files. Raises OSError."""
    status = path.stat()
    files = all_files_of(path)
    if files == [path]:
        return Stamp(status.st_size, status.st_mtime_ns)
    size = 0
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        size += status.st_size
        digest.update(f"{_name_within(file, path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return Stamp(size, int.from_bytes(digest.digest()[:8], "big") >> 1)


def sha256_of(path: Path, on_share: Callable[[float], None] = lambda share: None) -> str:
    """The content of a slide: a file's own SHA-256; of several files that of the sorted list of their names, sizes and
    SHA-256, the entry without its name. Equal wherever the slide lies and however it came. Raises OSError."""
    files = all_files_of(path)
    whole = max(1, sum(file.stat().st_size for file in files))
    done = 0
    lines = []
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while piece := opened.read(_PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                on_share(done / whole)
        lines.append((_name_within(file, path), digest.hexdigest()))
    if len(files) == 1:
        return lines[0][1]
    text = "".join(f"{sha256} {name}\n" for name, sha256 in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()


def all_files_of(path: Path) -> list[Path]:
    """As files_of, with the files of a folder instead of the folder."""
    files: list[Path] = []
    for each in files_of(path):
        files += sorted(inner for inner in each.iterdir() if inner.is_file()) if each.is_dir() else [each]
    return files


def _name_within(file: Path, entry: Path) -> str:
    """What the slide calls this file; nothing for the entry and for DICOM instances, whose names mean nothing."""
    nameless = file == entry or entry.suffix.lower() in DICOM_SUFFIXES
    return "" if nameless else file.name


def _names_listed_in(path: Path) -> set[str]:
    """Values of `key=value` lines that are plain file names; where else a list points to is never followed."""
    with path.open("rb") as file:
        lines = file.read(_LARGEST_LIST_BYTES).splitlines()
    values = (os.fsdecode(line.partition(b"=")[2].strip()) for line in lines)
    return {
        value for value in values if 0 < len(value) <= 255 and not {"/", "\0"} & set(value) and value not in (".", "..")
    }
