"""Files on their way in: started, received piece by piece, finished or refused. The HTTP side (tus 1.0) is upload_api.py.

What is safely on disk is counted in Upload.offset, and only that. After a crash the file may be longer than the offset
(bytes that were written but never counted): the next piece cuts it back to the offset first.
"""

import errno
import hashlib
import logging
import os
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Sum
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from audit_trail.enums import EventKind, Outcome
from audit_trail.recording import record
from slides import ingest
from slides.cases import case_named, checked_label
from slides.enums import UploadState
from slides.errors import PieceDamaged, StorageFull, UploadConflict, UploadRefused, UploadTooLarge
from slides.models import ARCHIVE_SUFFIX, Upload
from slides.upload_turns import Turn, forget_turns, turn
from slides.wsi import archives
from slides.wsi.slide_files import NEEDS_OTHER_FILES

log = logging.getLogger(__name__)

PIECE_BYTES = 2**16  # small, so that a slow line is heard of often (upload_turns.py)
SAFE_EVERY_BYTES = 16 * 2**20  # how much may have to be sent again after a crash
SAFE_EVERY_SECONDS = 1.0
LEFT_ALONE = timedelta(seconds=60)
FORGOTTEN = timedelta(days=7)

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


# --- starting -----------------------------------------------------------------------------------------


def start_upload(
    *,
    owner: User,
    length: int,
    file_name: str,
    accession: str,
    node_label: str,
    claimed_sha256: str,
    request: HttpRequest | None = None,
) -> Upload:
    """Room for one file of `length` bytes. Raises UploadRefused, UploadTooLarge (also: over the quota), StorageFull.

    A file that can be refused before its bytes travel is refused here, with a row and an event that say why.
    """
    file_name = checked_file_name(file_name)
    accession = checked_label(accession, what="case (accession number)", required=True)
    node_label = checked_label(node_label, what="lymph node", required=False)
    claimed_sha256 = claimed_sha256.strip().lower()
    if claimed_sha256 and not _SHA256.fullmatch(claimed_sha256):
        raise UploadRefused("The checksum that came with the file is not a SHA-256.")
    if length > settings.UPLOAD_MAX_BYTES:
        raise UploadTooLarge(
            f"The file has {_gb(length)}; the largest that is taken is {_gb(settings.UPLOAD_MAX_BYTES)}."
        )
    with transaction.atomic():
        _one_at_a_time()  # two uploads must not reserve the same space
        is_archive = file_name.lower().endswith(ARCHIVE_SUFFIX)
        _check_space(owner=owner, length=length, on_disk=2 * length if is_archive else length)
        case = case_named(accession=accession, actor=owner, request=request)
        upload = Upload.objects.create(
            owner=owner,
            case=case,
            node_label=node_label,
            file_name=file_name,
            length=length,
            claimed_sha256=claimed_sha256,
        )
        reason = _refusal_before_sending(upload)
        if reason:
            _refuse(upload, reason, request=request)
        else:
            record(
                EventKind.UPLOAD_STARTED,
                actor=owner,
                subject=upload,
                case_id=case.pk,
                details={"size_bytes": length},
                request=request,
            )
    if reason:
        raise UploadRefused(reason)
    upload.path.parent.mkdir(parents=True, exist_ok=True)
    upload.path.touch()
    return upload


def checked_file_name(name: str) -> str:
    """The name as text, without any folder: it is shown, never used as a path. Raises UploadRefused."""
    name = re.split(r"[/\\]", name)[-1].strip()
    if not name or len(name) > 255 or re.search(r"[\x00-\x1f\x7f]", name):
        raise UploadRefused("The file has no usable name.")
    return name


def _refusal_before_sending(upload: Upload) -> str:
    if upload.length == 0:
        return "The file is empty (0 bytes): the export from the scanner did not finish. Export it again."
    suffix = Path(upload.file_name.lower()).suffix
    if suffix in NEEDS_OTHER_FILES:
        return (
            f"A {suffix} slide is not one file: it needs {NEEDS_OTHER_FILES[suffix]}. "
            "Drop them together here, or send them in one zip archive."
        )
    if upload.claimed_sha256 and (same := ingest.same_content(upload.claimed_sha256)):
        return ingest.duplicate_words(same)
    return ""


def _one_at_a_time() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('slides.uploads.reserve'))")


def quota_left(owner: User) -> int:
    """Bytes that the person may still store: beside what is stored and what is under way. Never negative."""
    return max(0, settings.UPLOAD_QUOTA_BYTES - ingest.quota_used(owner))


def _check_space(*, owner: User, length: int, on_disk: int) -> None:
    """`on_disk`: what the file takes at most while it is worked on; an archive and what comes out of it lie side by side."""
    under_way = Upload.objects.filter(state=UploadState.RECEIVING)
    left = quota_left(owner)
    if length > left:
        raise UploadTooLarge(
            f"Your uploads may take {_gb(settings.UPLOAD_QUOTA_BYTES)} together; {_gb(left)} are left. "
            "Delete slides that are not needed, or ask an administrator for more room."
        )
    missing = under_way.aggregate(n=Sum(F("length") - F("offset")))["n"] or 0
    free, _ = ingest.storage_left()
    if missing + on_disk > free:
        raise StorageFull(
            f"The storage has room for {_gb(max(0, free - missing))} more; this file needs {_gb(on_disk)}. "
            "Tell the administrator. Nothing was lost."
        )


# --- receiving ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PieceChecksum:
    """What a piece is announced to have (tus checksum): nothing of it counts before it is there and right."""

    algorithm: str
    digest: bytes


def receive(
    *,
    upload_id: uuid.UUID,
    offset: int,
    size: int,
    stream: Stream,
    checksum: PieceChecksum | None = None,
    request: HttpRequest | None = None,
) -> Upload:
    """Appends up to `size` bytes at `offset`; finishes the upload when the last byte is there.

    A stream that ends early is no error: what came is kept and counted, unless the piece has a checksum. Raises
    PieceDamaged (the checksum differs; the piece is forgotten), UploadConflict (wrong offset, second
    writer, ended), UploadTooLarge (more than announced; nothing is written), StorageFull, UploadRefused (at the end).
    """
    upload = Upload.objects.get(pk=upload_id)
    with turn(upload.path) as mine:
        upload.refresh_from_db()
        _check_piece(upload, offset=offset, size=size)
        _write_pieces(upload, size=size, stream=stream, mine=mine, checksum=checksum)
        if upload.offset == upload.length:
            mine.end_may_take_long()
            _finish(upload, request=request)
    return upload


def finish_if_complete(*, upload_id: uuid.UUID, request: HttpRequest | None = None) -> Upload:
    """Makes up for an end that was cut off: all bytes are here, but the process died before the slide was made.

    Raises UploadConflict, UploadRefused.
    """
    upload = Upload.objects.get(pk=upload_id)
    if upload.state == UploadState.RECEIVING and upload.offset == upload.length:
        with turn(upload.path) as mine:
            upload.refresh_from_db()
            if upload.state == UploadState.RECEIVING:
                mine.end_may_take_long()
                _finish(upload, request=request)
    return upload


def finish_left_alone() -> None:
    """A duty of the scheduler: finishes complete uploads whose sender never came back."""
    waiting = Upload.objects.filter(
        state=UploadState.RECEIVING, offset=F("length"), touched_at__lt=timezone.now() - LEFT_ALONE
    )
    for upload in waiting:
        try:
            finish_if_complete(upload_id=upload.pk)
        except (UploadConflict, UploadRefused) as error:
            log.info("Upload %s: %s", upload.pk, error)


def drop_forgotten() -> None:
    """A duty of the scheduler: gives up unfinished uploads that nobody went on with, so that their space is free again."""
    forgotten = Upload.objects.filter(
        state=UploadState.RECEIVING, offset__lt=F("length"), touched_at__lt=timezone.now() - FORGOTTEN
    )
    for upload_id in forgotten.values_list("pk", flat=True):
        cancel_upload(upload_id=upload_id, actor=None)


def _check_piece(upload: Upload, *, offset: int, size: int) -> None:
    if upload.state != UploadState.RECEIVING:
        raise UploadConflict(f"This upload is {upload.get_state_display()}. {upload.reason}".strip())
    there = upload.path.stat().st_size if upload.path.exists() else 0
    if there < upload.offset < upload.length:  # a complete file may have moved on already: _finish looks for it
        log.error("Upload %s lost bytes: %d counted, %d on disk.", upload.pk, upload.offset, there)
        upload.offset = there
        upload.save(update_fields=["offset", "touched_at"])
    if offset != upload.offset:
        raise UploadConflict(f"The upload goes on at byte {upload.offset}, not at {offset}.", offset=upload.offset)
    if offset + size > upload.length:
        raise UploadTooLarge(f"The file was announced with {upload.length} bytes; more were sent.")
    free, _ = ingest.storage_left()
    if size > free:
        raise StorageFull("The storage is full. What was sent is kept; go on when there is room again.")


def _write_pieces(
    upload: Upload, *, size: int, stream: Stream, mine: Turn, checksum: PieceChecksum | None = None
) -> None:
    digest = _running_digests.take(upload.pk, upload.offset)
    of_piece = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
    position = upload.offset
    with _opened_at(upload.path, position, mine=mine) as file:
        uncounted_since = time.monotonic()
        left = size
        try:
            while left and (piece := stream.read(min(PIECE_BYTES, left))):
                with mine.writing():
                    file.write(piece)
                for each in (digest, of_piece):
                    if each is not None:
                        each.update(piece)
                position += len(piece)
                left -= len(piece)
                waited = time.monotonic() - uncounted_since
                if of_piece is not None:
                    continue
                if position - upload.offset >= SAFE_EVERY_BYTES or waited >= SAFE_EVERY_SECONDS:
                    _count(upload, file.fileno(), position, mine=mine)
                    uncounted_since = time.monotonic()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    "The storage is full. What was sent is kept; go on when there is room again."
                ) from error
            log.info("Upload %s broke off at byte %d: %s", upload.pk, position, error)  # the connection; kept below
        finally:
            if position > upload.offset and of_piece is None:
                _count(upload, file.fileno(), position, mine=mine)
        if checksum is not None and of_piece is not None and not left:
            if of_piece.digest() != checksum.digest:
                raise PieceDamaged("A piece was damaged on its way: its checksum differs. Send it again.")
            _count(upload, file.fileno(), position, mine=mine)
    if digest is not None and upload.offset == position:
        _running_digests.keep(upload.pk, position, digest)


@contextmanager
def _opened_at(path: Path, offset: int, *, mine: Turn) -> Iterator[Any]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        with mine.writing():
            file.truncate(offset)
        file.seek(offset)
        yield _Whole(file)


class _Whole:
    """An unbuffered file whose write() writes everything or raises."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def _count(upload: Upload, descriptor: int, position: int, *, mine: Turn) -> None:
    """The bytes up to `position` are safe, and from now on they count. Raises UploadConflict when nobody wants them."""
    os.fdatasync(descriptor)
    with mine.writing():
        _save_offset(upload, position)


def _save_offset(upload: Upload, position: int) -> None:
    changed = Upload.objects.filter(pk=upload.pk, state=UploadState.RECEIVING, offset=upload.offset).update(
        offset=position, touched_at=timezone.now()
    )
    if not changed:
        raise UploadConflict("This upload was cancelled.")
    upload.offset = position


# --- ending -------------------------------------------------------------------------------------------


@transaction.atomic
def cancel_upload(*, upload_id: uuid.UUID, actor: User | None, request: HttpRequest | None = None) -> None:
    """Gives up an unfinished upload, or clears away a refused one. Raises UploadConflict when it became a slide."""
    upload = Upload.objects.select_for_update().get(pk=upload_id)
    if upload.state == UploadState.CANCELLED:
        return
    if upload.state == UploadState.COMPLETE:
        raise UploadConflict("This upload is complete: delete the slide instead.")
    upload.state = UploadState.CANCELLED
    upload.save(update_fields=["state", "touched_at"])
    transaction.on_commit(lambda: _remove_file(upload))
    record(EventKind.UPLOAD_CANCELLED, actor=actor, subject=upload, case_id=upload.case_id, request=request)


def _finish(upload: Upload, *, request: HttpRequest | None) -> None:
    """All bytes are here: a slide, or a refusal with its reason. The caller is the sole writer. Raises UploadRefused."""
    slide_folder = Path(settings.METADET_HOME) / "slides" / str(upload.pk)
    # The slide gets the upload's id: wherever a crash falls, the next try finds the file in one of these known places.
    target = slide_folder / "source" / f"{upload.pk}{ingest.safe_suffix(upload.file_name)}"
    packed = target.with_name(f"{upload.pk}{ARCHIVE_SUFFIX}")
    path = next((each for each in (upload.path, target) if each.exists()), packed)
    is_archive = archives.is_archive(path)
    sha256 = _running_digests.finished(upload) or _sha256_of(path)
    target = packed if is_archive else target
    if reason := _refusal_at_the_end(upload, sha256, is_archive=is_archive):
        _end_refused(upload, path, reason, request=request)
    with transaction.atomic():
        ingest.lock_content(sha256)
        same = ingest.same_content(sha256)
        if same is None:
            _move(path, target)
            slide, _ = ingest.receive_slide(
                slide_id=upload.pk,
                case=upload.case,
                node_label=upload.node_label,
                file_name=upload.file_name,
                source=str(target.relative_to(settings.METADET_HOME)),
                imported_in_place=False,
                size_bytes=upload.length,
                mtime_ns=target.stat().st_mtime_ns,
                sha256=sha256,
                actor=upload.owner,
                request=request,
            )
            upload.state, upload.slide = UploadState.COMPLETE, slide
            upload.save(update_fields=["state", "slide", "touched_at"])
    if same is not None:
        _end_refused(upload, path, ingest.duplicate_words(same), request=request)
    _remove_file(upload)  # the lock; the file itself has moved


def _refusal_at_the_end(upload: Upload, sha256: str, *, is_archive: bool) -> str:
    if upload.claimed_sha256 and sha256 != upload.claimed_sha256:
        return "What arrived is not what was sent: the checksums differ. Send the file again."
    if upload.file_name.lower().endswith(ARCHIVE_SUFFIX) and not is_archive:
        return "The file is named .zip but is no zip archive. Pack it again, or send the slide files themselves."
    return ""


def _end_refused(upload: Upload, path: Path, reason: str, *, request: HttpRequest | None) -> None:
    with transaction.atomic():
        _refuse(upload, reason, request=request)
    path.unlink(missing_ok=True)  # the sender has the file; nothing here is the only copy
    _remove_file(upload)
    raise UploadRefused(reason)


def _refuse(upload: Upload, reason: str, *, request: HttpRequest | None) -> None:
    upload.state, upload.reason = UploadState.REFUSED, reason
    upload.save(update_fields=["state", "reason", "touched_at"])
    record(
        EventKind.UPLOAD_REFUSED,
        actor=upload.owner,
        subject=upload,
        case_id=upload.case_id,
        outcome=Outcome.DENIED,
        details={"reason": reason, "size_bytes": upload.length},
        request=request,
    )


def _move(path: Path, target: Path) -> None:
    """By rename, on one disk, and safe against a crash before the row is committed. Does nothing the second time."""
    if path == target:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    for folder in (target.parent, path.parent):
        make_names_durable(folder)


def make_names_durable(folder: Path) -> None:
    """The names in the folder outlive a power cut from now on."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_file(upload: Upload) -> None:
    _running_digests.drop(upload.pk)
    upload.path.unlink(missing_ok=True)
    forget_turns(upload.path)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _RunningDigests:
    """SHA-256 of what this process has received so far, so that the end of an upload need not read the file again."""

    MOST = 64

    def __init__(self) -> None:
        self._kept: OrderedDict[uuid.UUID, tuple[int, Any]] = OrderedDict()

    def take(self, upload_id: uuid.UUID, offset: int) -> Any | None:
        """A digest of the first `offset` bytes, or None when this process did not see them all."""
        kept = self._kept.pop(upload_id, None)
        if offset == 0:
            return hashlib.sha256()
        return kept[1] if kept is not None and kept[0] == offset else None

    def keep(self, upload_id: uuid.UUID, offset: int, digest: Any) -> None:
        self._kept[upload_id] = (offset, digest)
        while len(self._kept) > self.MOST:
            self._kept.popitem(last=False)

    def finished(self, upload: Upload) -> str | None:
        kept = self._kept.get(upload.pk)
        return kept[1].hexdigest() if kept is not None and kept[0] == upload.length else None

    def drop(self, upload_id: uuid.UUID) -> None:
        self._kept.pop(upload_id, None)


_running_digests = _RunningDigests()


def _gb(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
