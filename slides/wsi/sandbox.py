"""The parent's side: every slide file is decoded in a disposable child, and nothing the child says is taken on trust.

A child that crashes, hangs, or runs out of memory ends as SlideRefused with a reason; the parent is not harmed.
"""

import math
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from slides.wsi import messages, tile_store
from slides.wsi.archives import Member
from slides.wsi.errors import NoScale, RefusalCode, SlideRefused, WsiError
from slides.wsi.pixel_ring import LARGEST_READ_PIXELS, PixelRing, ReadRequest
from slides.wsi.pixels import Pixels
from slides.wsi.properties import ScaleState, SlideProperties
from slides.wsi.quality import Quality
from slides.wsi.slide_files import files_of
from slides.wsi.store_plan import StorePlan

_ROOT = Path(__file__).resolve().parents[2]
_UNPACKING_MEMORY_BYTES = 512 << 20
_LARGEST_IMAGE_BYTES = 64 << 20
_ASSOCIATED = ("label", "macro")
_ASSOCIATED_FILES = {f"{name}.png": _LARGEST_IMAGE_BYTES for name in _ASSOCIATED}
_STORE_FILES = {
    "index.json": 16 << 20,
    "tiles.npy": 4 << 30,
    "headers.bin": 64 << 20,
    "pyramid.tif": 1 << 50,  # bounded by Limits.file_bytes
    "thumbnail.jpg": _LARGEST_IMAGE_BYTES,
    tile_store.COLOUR_NAME: tile_store.COLOUR_BYTES,
}
_MOST_AHEAD = 32
_PARTING_SECONDS = 2.0
_NEVER = 1 << 62
_BACKGROUND_NICE = 10
# Pictures of tiles are taken from the heap: fetching fresh pages from the kernel for each costs more than filling them.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "2", "MALLOC_ARENA_MAX": "2",
                "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}  # fmt: skip

OnProgress = Callable[[str, float], None]
T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `describe_seconds`, `prepare_seconds`, `read_seconds` are wall time, the last per read;
    `stall_seconds` without any progress ends a preparation. `namespaces` false: limits and filter alone, as where
    the kernel refuses namespaces."""

    memory_bytes: int = 4 << 30
    cpu_seconds: int = 6 * 3600
    file_bytes: int = 256 << 30
    describe_seconds: float = 60.0
    prepare_seconds: float = 6 * 3600.0
    stall_seconds: float = 300.0
    read_seconds: float = 120.0
    ring_bytes: int = 64 << 20
    namespaces: bool = True


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Description:
    properties: SlideProperties
    store: StorePlan


@dataclass(frozen=True, slots=True)
class PreparedSlide:
    """`checked`: every tile was decoded, the counts hold for the whole slide, and the low levels are made.

    False: a first look on the levels of the file itself; to be prepared once more without `first_look_above`.
    """

    properties: SlideProperties
    store: StorePlan
    tile_store: Path
    thumbnail: Path
    quality: Quality
    checked: bool
    missing_tiles: int
    corrupt_tiles: int
    associated: dict[str, Path]
    seconds: float


def describe(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Description:
    """What the file is and what would become of it; writes nothing. Raises SlideRefused."""
    with _Child({"task": "describe"}, path, limits=limits) as child:
        answer = child.answer(seconds=limits.describe_seconds)
        return Description(_believed(_properties_from, answer), _believed(_plan_from, answer))


def prepare(
    path: Path,
    output_dir: Path,
    *,
    associated_dir: Path | None,
    mpp_override: tuple[float, float] | None = None,
    first_look_above: int | None = None,
    in_background: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    on_progress: OnProgress = lambda stage, fraction: None,
) -> PreparedSlide:
    """Make the tile store and thumbnail of a slide in `output_dir`, label and macro in `associated_dir`.

    Both folders must exist. `mpp_override`: (x, y) um per level-0 pixel, entered by a person. `first_look_above`: a slide
    of more pixels is only made viewable, where that is possible (PreparedSlide.checked). `in_background`: at low priority for the processor. Raises SlideRefused; what was written
    until then is left for the caller to remove.
    """
    start = {
        "task": "prepare",
        "output": str(output_dir.resolve()),
        "associated": str(associated_dir.resolve()) if associated_dir else None,
        "mpp_override": mpp_override,
        "first_look_above": _NEVER if first_look_above is None else first_look_above,
        "nice": _BACKGROUND_NICE if in_background else 0,
    }
    with _Child(start, path, limits=limits) as child:
        answer = child.answer(seconds=limits.prepare_seconds, on_progress=on_progress)
    check_written(output_dir, _STORE_FILES)
    if associated_dir:
        check_written(associated_dir, _ASSOCIATED_FILES)
    prepared = _believed(lambda said: _prepared_from(said, output_dir, associated_dir), answer)
    finish_store(path, output_dir, prepared.store.kind)
    return prepared


def unpack(
    path: Path,
    output_dir: Path,
    *,
    room_bytes: int,
    free_bytes: int,
    limits: Limits = DEFAULT_LIMITS,
    on_progress: OnProgress = lambda stage, fraction: None,
) -> list[Member]:
    """The members of a zip archive, each written to `member.written_in(output_dir)`. Raises SlideRefused.

    At most `room_bytes` by rule and `free_bytes` by what the disk has; what was written before a refusal is left for
    the caller to remove.
    """
    largest = min(limits.file_bytes, room_bytes, free_bytes)
    limits = replace(limits, memory_bytes=min(limits.memory_bytes, _UNPACKING_MEMORY_BYTES), file_bytes=largest)
    start = {
        "task": "unpack", "output": str(output_dir.resolve()), "room_bytes": room_bytes, "free_bytes": free_bytes,
    }  # fmt: skip
    with _Child(start, path, limits=limits) as child:
        answer = child.answer(seconds=limits.prepare_seconds, on_progress=on_progress)
    return _believed(lambda said: _members_from(said, output_dir, room_bytes), answer)


def open_pixels(
    path: Path,
    *,
    mpp_override: tuple[float, float] | None = None,
    store: Path | None = None,
    checked: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> "PixelSource":
    """Pixels of a slide, decoded in a child. `store`: its tile store, when there is one, is read instead: faster.

    `checked`: its tile store, only for what it says of damaged tiles: pixels over a tile of full resolution that is
    damaged are `failed` also where a coarser level of the file could be read.
    """
    return PixelSource(path, mpp_override=mpp_override, store=store, checked=checked, limits=limits)


class PixelSource:
    """A context manager. `mpp_x`, `mpp_y` are the override, else the file's own where they are plausible, else None."""

    def __init__(
        self,
        path: Path,
        *,
        mpp_override: tuple[float, float] | None,
        store: Path | None,
        checked: Path | None,
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._ring = PixelRing(limits.ring_bytes)
        start = {
            "task": "pixels",
            "mpp_override": mpp_override,
            "store": str(store.resolve()) if store else None,
            "checked": str(checked.resolve()) if checked else None,
        }
        self._child = _Child(start, path, limits=limits, ring=self._ring)
        self._planned: Iterator[ReadRequest] = iter(())
        self._waiting: ReadRequest | None = None
        try:
            answer = self._child.answer(seconds=limits.describe_seconds)
            self.properties = _believed(_properties_from, answer)
        except BaseException:
            self.close()
            raise
        self.width, self.height = self.properties.width, self.properties.height
        has_scale = self.properties.scale_state == ScaleState.OK
        own = (self.properties.mpp_x, self.properties.mpp_y) if has_scale else (None, None)
        self.mpp_x, self.mpp_y = mpp_override or own

    def read_at_mpp(self, x0: float, y0: float, width_px: int, height_px: int, mpp: float) -> Pixels:
        """Area-averaged pixels of `mpp` um from level-0 position (x0, y0); white outside, `failed` where unreadable.

        Raises NoScale, or SlideRefused (decoder_crashed, decoder_timeout) when the child is lost.
        """
        self._check_scale()
        request = ReadRequest(float(x0), float(y0), int(width_px), int(height_px), float(mpp))
        if self._ring.is_next(request):
            pixels = self._take()
        else:
            self._forget_planned()
            self._ask(request)
            pixels = self._take()
        self._ask_ahead()
        return pixels

    def prefetch(self, reads: Iterable[tuple[float, float, int, int, float]]) -> None:
        """Let the child decode these (x0, y0, width_px, height_px, mpp) ahead; read_at_mpp then takes them in this order.

        A read out of order is answered too, and ends the reading ahead.
        """
        self._check_scale()
        self._forget_planned()
        self._planned = (ReadRequest(float(x), float(y), int(w), int(h), float(mpp)) for x, y, w, h, mpp in reads)
        self._ask_ahead()

    def thumbnail_at_mpp(self, mpp: float) -> Pixels:
        """The whole slide at `mpp` um per pixel."""
        self._check_scale()
        assert self.mpp_x is not None
        assert self.mpp_y is not None
        width = max(1, round(self.width * self.mpp_x / mpp))
        height = max(1, round(self.height * self.mpp_y / mpp))
        whole = Pixels.white(width, height)
        side = 1024
        places = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
        sizes = [(min(side, width - x), min(side, height - y)) for x, y in places]
        reads = [
            (x * mpp / self.mpp_x, y * mpp / self.mpp_y, w, h, mpp)
            for (x, y), (w, h) in zip(places, sizes, strict=True)
        ]
        self.prefetch(reads)
        for (x, y), (w, h), read in zip(places, sizes, reads, strict=True):
            part = self.read_at_mpp(*read)
            whole.rgb[y : y + h, x : x + w], whole.failed[y : y + h, x : x + w] = part.rgb, part.failed
        return whole

    def _check_scale(self) -> None:
        if self.mpp_x is None or self.mpp_y is None:
            raise NoScale("The pixel size of this slide is not known. An operator must enter it first.")

    def _ask_ahead(self) -> None:
        while self._ring.pending < _MOST_AHEAD:
            request = self._waiting or next(self._planned, None)
            self._waiting = None
            if request is None:
                return
            if not self._ring.fits(request):
                self._waiting = request
                return
            self._ask(request)

    def _ask(self, request: ReadRequest) -> None:
        if request.width * request.height > LARGEST_READ_PIXELS or request.width < 1 or request.height < 1:
            raise ValueError(f"a read of {request.width} x {request.height} pixels; at most {LARGEST_READ_PIXELS:,}")
        self._child.send(self._ring.place(request))

    def _take(self) -> Pixels:
        reply = self._child.reply(seconds=self._limits.read_seconds)
        if reply.get("id") != self._ring.next_id or "error" in reply:
            raise self._child.crashed("it answered out of order")
        return self._ring.take()

    def _forget_planned(self) -> None:
        self._planned, self._waiting = iter(()), None
        while self._ring.pending:
            self._take()

    def close(self) -> None:
        self._child.close()
        self._ring.close()

    def __enter__(self) -> "PixelSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Child:
    """One child process with its pipes. Leaving the context ends it, whatever it is doing."""

    def __init__(self, start: Mapping[str, Any], path: Path, *, limits: Limits, ring: PixelRing | None = None) -> None:
        _check_is_there(path)
        self._limits = limits
        absolute = path.absolute()
        self._start = {
            **start,
            "slide": str(absolute),
            "files": [str(file) for file in files_of(absolute)],
            "limits": {
                "memory_bytes": limits.memory_bytes + (limits.ring_bytes if ring else 0),
                "cpu_seconds": limits.cpu_seconds,
                "file_bytes": limits.file_bytes,
            },
        }
        self._ring = ring
        self._first: dict[str, Any] | None = None
        self._spawn(namespaces=limits.namespaces and _Kernel.offers_namespaces())

    def _spawn(self, *, namespaces: bool) -> None:
        request_read, self._requests = os.pipe()
        self._replies, reply_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        self._log = os.memfd_create("decoder-log")
        ring = self._ring.descriptor if self._ring else lifeline_read
        inherited = (request_read, reply_write, lifeline_read, ring)
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-s", "-B", "-m", "slides.wsi.child", *map(str, inherited)],
            cwd=_ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=inherited,
            start_new_session=True,
        )
        for descriptor in (request_read, reply_write, lifeline_read):
            os.close(descriptor)
        self.send({**self._start, "namespaces": namespaces})

    def send(self, message: dict[str, Any]) -> None:
        try:
            messages.send(self._requests, message)
        except messages.Closed as error:
            raise self._ended() from error

    def answer(self, *, seconds: float, on_progress: OnProgress = lambda stage, fraction: None) -> dict[str, Any]:
        """The final answer of the task, progress passed on meanwhile. Raises SlideRefused."""
        end = time.monotonic() + seconds
        while True:
            reply = self.reply(seconds=min(self._limits.stall_seconds, end - time.monotonic()))
            if "done" in reply and isinstance(reply["done"], dict):
                return reply["done"]
            fraction = reply.get("fraction")
            if not isinstance(fraction, float) or not math.isfinite(fraction):
                raise self.crashed("it gave an answer that makes no sense")
            on_progress(str(reply.get("stage", ""))[:100], min(1.0, max(0.0, fraction)))

    def reply(self, *, seconds: float) -> dict[str, Any]:
        try:
            reply = messages.receive(self._replies, deadline=time.monotonic() + max(0.0, seconds))
        except messages.TimedOut as error:
            raise SlideRefused(
                RefusalCode.DECODER_TIMEOUT,
                f"Reading the slide made no progress for {seconds:.0f} seconds and was stopped. "
                "Try again; if it happens again, export the slide from the scanner once more.",
            ) from error
        except messages.Closed as error:
            raise self._ended() from error
        except messages.BadMessage as error:
            raise self.crashed("it sent garbage") from error
        if "not_isolated" in reply:
            raise _NotIsolated(str(reply["not_isolated"])[:300])
        if "refused" in reply:
            raise _refusal(reply)
        if "failed" in reply:
            raise WsiError(str(reply["failed"])[:1000])
        return reply

    def _ended(self) -> SlideRefused:
        """Why the pipe closed."""
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return self.crashed("it stopped answering")
        log = self._log_tail()
        if "MemoryError" in log or "out of memory" in log.lower() or "failed to allocate" in log:
            return _out_of_memory()
        signal_number = status - 128 if status > 128 else -status if status < 0 else 0
        return self.crashed(f"ended by signal {signal_number}" if signal_number else f"ended with status {status}")

    def crashed(self, how: str) -> SlideRefused:
        refusal = SlideRefused(
            RefusalCode.DECODER_CRASHED,
            f"The program that decodes slides failed on this file ({how}). The file is probably damaged: "
            "export it from the scanner again.",
        )
        refusal.add_note(self._log_tail())
        return refusal

    def _log_tail(self) -> str:
        size = os.fstat(self._log).st_size
        return os.pread(self._log, 4096, max(0, size - 4096)).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._lifeline)  # the warden ends the decoder, then itself; one that cannot is ended from here
        try:
            self._process.wait(timeout=_PARTING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for descriptor in (self._requests, self._replies, self._log):
            os.close(descriptor)

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NotIsolated(WsiError):
    """The kernel refused the namespaces; the text names the step."""


class _Kernel:
    """What of the walls around the child this machine offers, found out once by a child that says hello."""

    _lock = threading.Lock()
    _missing: tuple[str | None, list[str]] | None = None

    @classmethod
    def offers_namespaces(cls) -> bool:
        return cls.missing()[0] is None

    @classmethod
    def missing(cls) -> tuple[str | None, list[str]]:
        """Why there are no namespaces (None: there are), and which other walls do not hold."""
        with cls._lock:
            if cls._missing is None:
                cls._missing = cls._try()
            return cls._missing

    @classmethod
    def _try(cls) -> tuple[str | None, list[str]]:
        try:
            return None, cls._not_held(namespaces=True)
        except _NotIsolated as refused:
            why = str(refused)
        except SlideRefused as refused:
            why = "own namespaces (" + "; ".join([refused.message, *getattr(refused, "__notes__", [])]) + ")"
        return why, cls._not_held(namespaces=False)

    @staticmethod
    def _not_held(*, namespaces: bool) -> list[str]:
        child = _Child.__new__(_Child)
        child._limits, child._ring = Limits(), None
        child._start = {
            "task": "hello", "slide": sys.executable, "files": [],
            "limits": {"memory_bytes": 1 << 30, "cpu_seconds": 20, "file_bytes": 1 << 20},
        }  # fmt: skip
        child._spawn(namespaces=namespaces)
        with child:
            held = child.answer(seconds=20)
        return [wall for wall in ("landlock", "filter") if held.get(wall) is not True]


def isolation_report() -> list[str]:
    """What closes the decoding child off on this machine, and what is missing, for the start-up check."""
    no_namespaces, not_held = _Kernel.missing()
    held = ["limits on memory, time, files and processes", "no privileges"]
    if "filter" not in not_held:
        held.append("a filter of system calls")
    if "landlock" not in not_held:
        held.append("Landlock rules for files")
    walls = "; ".join(held)
    if no_namespaces is None:
        report = [f"Slides are decoded in own user, mount, process, network and IPC namespaces, with {walls}."]
    else:
        report = [
            f"Slides are decoded with {walls}.",
            f"MISSING: own namespaces. The system refused {no_namespaces}.",
        ]
        if "landlock" in not_held:
            report.append("MISSING: Landlock. The decoder can read every file that this account can read.")
    if "filter" in not_held:
        report.append(
            "MISSING: the filter of system calls. The decoder can ask the kernel for anything this account may."
        )
    return report


def _refusal(reply: Mapping[str, Any]) -> SlideRefused:
    try:
        code = RefusalCode(reply["refused"])
    except ValueError:
        code = RefusalCode.UNREADABLE
    if code is RefusalCode.OUT_OF_MEMORY:
        return _out_of_memory()
    if code is RefusalCode.NO_SPACE:
        return SlideRefused(code, "The disk is full: free some space, then try again.")
    return SlideRefused(code, str(reply.get("message", ""))[:2000] or "The file cannot be read as a slide.")


def _out_of_memory() -> SlideRefused:
    return SlideRefused(
        RefusalCode.OUT_OF_MEMORY,
        "The file needs more memory to decode than is allowed. It is damaged, or one image of it is far too large in one piece.",
    )


def _believed(read: Callable[[S], T], said: S) -> T:
    """What the child said or wrote, in our types; nonsense is a crash."""
    try:
        return read(said)
    except SlideRefused:
        raise
    except Exception as error:  # whoever took over the decoder chooses which of our lines stumbles
        raise SlideRefused(
            RefusalCode.DECODER_CRASHED,
            f"The program that decodes slides gave an answer that makes no sense ({error}).",
        ) from error


def _properties_from(answer: Mapping[str, Any]) -> SlideProperties:
    return SlideProperties.from_json(answer["properties"])


def _plan_from(answer: Mapping[str, Any]) -> StorePlan:
    return StorePlan.from_json(answer["store"])


def _prepared_from(answer: Mapping[str, Any], output: Path, associated: Path | None) -> PreparedSlide:
    names = [name for name in _ASSOCIATED if name in answer["associated"]]
    images = {name: associated / f"{name}.png" for name in names} if associated else {}
    thumbnail = output / "thumbnail.jpg"
    for image in (thumbnail, *images.values()):
        if not image.is_file():
            raise ValueError(f"{image.name} is missing")
    return PreparedSlide(
        properties=_properties_from(answer),
        store=_plan_from(answer),
        tile_store=output,
        thumbnail=thumbnail,
        quality=Quality.from_json(answer["quality"]),
        checked=answer["checked"] is True,
        missing_tiles=int(answer["missing_tiles"]),
        corrupt_tiles=int(answer["corrupt_tiles"]),
        associated=images,
        seconds=float(answer["seconds"]),
    )


def check_written(folder: Path, largest: Mapping[str, int]) -> None:
    """Refuses what no honest child writes, before anything of it is opened: a link leads out of the folder, whoever
    follows it. `largest`: the names that may be there, and how many bytes each may have. Raises SlideRefused."""
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not plain or status.st_size > largest.get(entry.name, -1):
            raise SlideRefused(
                RefusalCode.DECODER_CRASHED,
                "The program that decodes slides wrote what it should not. The file may be made to do harm: "
                "do not open it elsewhere, and tell the administrator.",
            )


def _members_from(answer: Mapping[str, Any], output: Path, room_bytes: int) -> list[Member]:
    members = [Member.from_json(said) for said in answer["members"]]
    written = {member.written_in(output).name: member.size for member in members}
    check_written(output, written)
    there = {file.name: file.lstat().st_size for file in output.iterdir()}
    if there != written or sum(written.values()) > room_bytes:
        raise ValueError("other files than were announced")
    return members


def finish_store(path: Path, output: Path, kind: str) -> None:
    """Check the store the child wrote against the files, and name the slide file in it: paths never come from the child.
    Raises SlideRefused for a store that makes no sense."""
    _check_is_there(path)  # else its absence would be taken for the child's nonsense

    def checked(output: Path) -> dict[str, Any]:
        document, index, blob = tile_store.load_index(output)
        files = [path] if kind == tile_store.PASS_THROUGH else []
        pyramid = output / "pyramid.tif"
        if len(document["files"]) > len(files):
            files.append(pyramid)
        _check_colour(output, document)
        tile_store.check_bounds(index, [file.stat().st_size for file in files])
        document["files"] = [
            tile_store.file_entry(file, named=file.name if file is pyramid else _name_from(file, output))
            for file in files
        ]
        document["store_id"] = tile_store.store_id(index.records, blob)  # it goes into the headers of answers
        return document

    def served(output: Path) -> None:
        with tile_store.TileStore.load(output) as store:
            store.descriptor()

    tile_store.write_index(output, _believed(checked, output))
    _believed(served, output)


def _check_is_there(path: Path) -> None:
    if not path.exists():
        raise SlideRefused(RefusalCode.NOT_A_SLIDE, "The slide file is not there.")


def _check_colour(output: Path, document: dict[str, Any]) -> None:
    """The table of colours is of its one size, or there is none; what is said of it is a name and a yes or no."""
    said = document.get("colour")
    if not isinstance(said, dict):
        document["colour"] = None
        return
    table = output / tile_store.COLOUR_NAME
    if table.is_symlink() or not table.is_file() or table.stat().st_size != tile_store.COLOUR_BYTES:
        raise SlideRefused(RefusalCode.DECODER_CRASHED, "The program that decodes slides wrote no table of colours.")
    document["colour"] = {"profile": str(said.get("profile"))[:100], "changes": bool(said.get("changes"))}


def _name_from(file: Path, folder: Path) -> str:
    """Relative where slide and store lie close together, so that both can be moved; else absolute."""
    file, folder = Path(os.path.abspath(file)), Path(os.path.abspath(folder))
    near = folder.parent in file.parents or folder.parent.parent in file.parents
    return os.path.relpath(file, folder) if near else str(file)
