"""Slides that came in a zip archive: unpacked in the child, sorted into slides, each put into a folder of its own.

The slide that stood for the archive becomes the first slide of it; the others are received beside it. Until the
transaction that says so, the archive alone counts: after a crash at any place it is unpacked anew.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.db import transaction

from slides import ingest, uploads
from slides.models import ARCHIVE_SUFFIX, Slide
from slides.wsi import sandbox
from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.slide_files import DICOM_SUFFIXES, NEEDS_OTHER_FILES, SLIDE_SUFFIXES, slides_among, stamp_of

MOST_SLIDES = 100

Found = list[tuple[PurePosixPath, list[PurePosixPath]]]


def unpack(slide: Slide, *, hold: Callable[[], None], report: Callable[[str, float], None]) -> Slide:
    """The slide with its files in place of the archive. `hold` makes sure that this worker still has the job.

    Raises SlideRefused for archives that are not unpacked, or that hold no slide; nothing is left of them then.
    """
    if not slide.source_path.is_file():
        return slide  # said to be missing by what comes next
    for left in slide.folder.glob("unpacked-*"):
        shutil.rmtree(left, ignore_errors=True)
    free, _ = ingest.storage_left()
    folder = Path(tempfile.mkdtemp(prefix="unpacked-", dir=slide.folder))
    try:
        members = sandbox.unpack(
            slide.source_path, folder, room_bytes=_room(slide), free_bytes=free, on_progress=report
        )
        files = {member.name: member.written_in(folder) for member in members}
        found = slides_among(files)
        _check(found)
        _make_durable(files.values())
        with transaction.atomic():
            hold()
            slide = ingest.locked(slide.pk)
            _place(slide, found, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return slide


def forget_archive(slide: Slide) -> None:
    """Removes the archive of a slide that was unpacked, should a crash have left it."""
    (slide.source_path.parent / f"{slide.pk}{ARCHIVE_SUFFIX}").unlink(missing_ok=True)


def _room(slide: Slide) -> int:
    """Bytes that the rules allow; the archive itself is taken from the quota already and gives its place up."""
    if slide.created_by is None:
        return settings.UPLOAD_MAX_BYTES
    return min(settings.UPLOAD_MAX_BYTES, uploads.quota_left(slide.created_by) + slide.size_bytes)


def _check(found: Found) -> None:
    if not found:
        raise SlideRefused(
            RefusalCode.NOT_A_SLIDE,
            f"The zip archive holds no slide ({', '.join(SLIDE_SUFFIXES)}, or a DICOM series). "
            "Pack the scanner's own files.",
        )
    if len(found) > MOST_SLIDES:
        raise SlideRefused(
            RefusalCode.BAD_ARCHIVE,
            f"The zip archive holds {len(found)} slides; {MOST_SLIDES} are taken at once. Send it in parts.",
        )
    for entry, companions in found:
        suffix = entry.suffix.lower()
        if suffix in NEEDS_OTHER_FILES and not companions:
            raise SlideRefused(
                RefusalCode.INCOMPLETE,
                f"The zip archive holds a {suffix} file without {NEEDS_OTHER_FILES[suffix]}. Pack them together.",
            )


def _make_durable(files: Iterable[Path]) -> None:
    """The archive goes when its files are in place: they must not live in memory alone by then."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _place(slide: Slide, found: Found, files: dict[PurePosixPath, Path]) -> None:
    archive, archive_sha256 = slide.source_path, slide.sha256
    _clear(archive.parent, but=archive)
    (entry, companions), *others = found
    source = _moved(archive.parent, slide.pk, entry, companions, files)
    stamp = stamp_of(source)
    slide.file_name, slide.source = _shown(entry), str(source.relative_to(settings.METADET_HOME))
    slide.size_bytes, slide.source_mtime_ns = stamp.size_bytes, stamp.mtime_ns
    slide.sha256, slide.archive_sha256 = "", archive_sha256  # the content is read next
    slide.save(update_fields=["file_name", "source", "size_bytes", "source_mtime_ns", "sha256", "archive_sha256"])
    for number, (entry, companions) in enumerate(others, start=1):
        # The same id at every try: what a crash left is found and replaced.
        slide_id = uuid.uuid5(slide.pk, str(number))
        folder = Path(settings.METADET_HOME) / "slides" / str(slide_id) / "source"
        _clear(folder)
        source = _moved(folder, slide_id, entry, companions, files)
        stamp = stamp_of(source)
        ingest.receive_slide(
            slide_id=slide_id,
            case=slide.case,
            node_label=slide.node.label if slide.node else "",
            file_name=_shown(entry),
            source=str(source.relative_to(settings.METADET_HOME)),
            imported_in_place=False,
            size_bytes=stamp.size_bytes,
            mtime_ns=stamp.mtime_ns,
            sha256="",
            archive_sha256=archive_sha256,
            actor=slide.created_by,
        )
    transaction.on_commit(lambda: forget_archive(slide))


def _moved(
    folder: Path,
    slide_id: uuid.UUID,
    entry: PurePosixPath,
    companions: list[PurePosixPath],
    files: dict[PurePosixPath, Path],
) -> Path:
    """Where the entry file lies now. Only names that the entry file mentions itself are kept, and only their last part."""
    suffix = ingest.safe_suffix(entry.name)
    is_series = suffix in DICOM_SUFFIXES
    source = folder / f"{slide_id}{suffix or '.dcm'}"
    beside = folder / str(slide_id) if suffix == ".mrxs" else folder
    beside.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(companions):
        files[name].rename(beside / (f"{number:04}.dcm" if is_series else name.name))
    files[entry].rename(source)
    for each in {beside, folder}:
        uploads.make_names_durable(each)
    return source


def _clear(folder: Path, *, but: Path | None = None) -> None:
    for each in folder.iterdir() if folder.exists() else ():
        if each == but:
            continue
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def _shown(entry: PurePosixPath) -> str:
    return str(entry)[-255:]
