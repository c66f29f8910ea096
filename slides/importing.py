"""Import in place: the files stay where they are, are never copied and never written to.

A slide of several files (MIRAX with its folder, Hamamatsu, a DICOM series) is one slide, named by its entry file.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from accounts.models import User
from slides import ingest
from slides.cases import case_named
from slides.errors import ImportRefused, UploadRefused
from slides.models import Slide
from slides.wsi.archives import is_archive
from slides.wsi.slide_files import DICOM_SUFFIXES, SLIDE_SUFFIXES, files_of, sha256_of, slides_among, stamp_of

ARCHIVE_WORDS = (
    "A zip archive cannot be imported in place: nothing is written to the folder it lies in. "
    "Unpack it there, or upload it from the page."
)


@dataclass(frozen=True)
class Imported:
    """What became of one path: a slide, or the reason why not (`duplicate_of` names the slide it equals)."""

    path: Path
    slide: Slide | None
    reason: str = ""
    duplicate_of: Slide | None = None


def slide_files(paths: Iterable[Path]) -> list[Path]:
    """One path for each slide: files as given; of a folder, the entry files in it and below. Raises ImportRefused."""
    found: list[Path] = []
    for path in paths:
        path = path.expanduser()
        if path.is_dir():
            files = [each for each in path.rglob("*") if each.is_file() and not _hidden(each, below=path)]
            inside = [entry for entry, _ in slides_among({each: each for each in files})]
            if not inside:
                raise ImportRefused(f"The folder {path} holds no slide file ({', '.join(SLIDE_SUFFIXES)}).")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise ImportRefused(f"There is no file or folder {path} on this server.")
    return list(dict.fromkeys(each.resolve() for each in found))


def _hidden(path: Path, *, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def allowed_from_the_page(text: str) -> Path:
    """The path an operator typed, if it lies inside one of METADET_IMPORT_FOLDERS. Raises ImportRefused."""
    folders = [folder.resolve() for folder in settings.IMPORT_FOLDERS]
    if not folders:
        raise ImportRefused("Import from the page is off: the administrator sets METADET_IMPORT_FOLDERS.")
    path = Path(text.strip())
    if not path.is_absolute():
        path = folders[0] / path
    path = path.resolve()  # links are followed before the comparison
    if not any(path == folder or folder in path.parents for folder in folders):
        raise ImportRefused(f"Only files below {', '.join(map(str, folders))} can be imported.")
    return path


def import_file(
    *,
    path: Path,
    accession: str,
    node_label: str = "",
    actor: User | None,
    hash_now: bool,
    request: HttpRequest | None = None,
) -> Imported:
    """One file as a slide of the case, which is made if it is missing.

    With `hash_now` a duplicate is recognised at once; without it, when the worker has read the file.
    """
    path = path.resolve()
    try:
        if is_archive(path):
            return Imported(path, None, ARCHIVE_WORDS)
        stamp = stamp_of(path)
        sha256 = sha256_of(path) if hash_now else ""
    except OSError as error:
        return Imported(path, None, f"The file cannot be read: {error.strerror}.")
    with transaction.atomic():
        ingest.lock_content(sha256 or str(path))
        same = ingest.same_content(sha256) if sha256 else None
        same = same or Slide.objects.present().filter(source=str(path)).select_related("case", "node").first()
        if same is not None:
            return Imported(path, None, ingest.duplicate_words(same), duplicate_of=same)
        try:
            slide, _ = ingest.receive_slide(
                slide_id=uuid.uuid4(),
                case=case_named(accession=accession, actor=actor, request=request),
                node_label=node_label,
                file_name=shown_name(path),
                source=str(path),
                imported_in_place=True,
                size_bytes=stamp.size_bytes,
                mtime_ns=stamp.mtime_ns,
                sha256=sha256,
                actor=actor,
                request=request,
            )
        except UploadRefused as error:
            raise ImportRefused(str(error)) from error
    return Imported(path, slide)


def shown_name(path: Path) -> str:
    """The file's name; an instance of a DICOM series says little without its folder."""
    is_series = path.suffix.lower() in DICOM_SUFFIXES and len(files_of(path)) > 1
    return f"{path.parent.name}/{path.name}" if is_series else path.name
