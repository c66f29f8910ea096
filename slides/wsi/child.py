"""The disposable process that decodes one slide: `python -m slides.wsi.child REQUESTS REPLIES LIFELINE RING`.

The arguments are numbers of inherited file descriptors. The first message says what to show, how tight the limits
are and what to do. A small warden process stays outside of the namespaces: it ends the decoder when the parent goes away,
and passes on how the decoder ended. Heavy libraries are imported after the process has been closed off.
"""

import errno
import mmap
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from slides.wsi import isolation, messages, syscall_filter
from slides.wsi.errors import RefusalCode, SlideRefused, WsiError
from slides.wsi.isolation import NotIsolated, View

_CODE = Path(__file__).resolve().parent.parent
_SLIDE = Path("/slide")


def main(requests: int, replies: int, lifeline: int, ring: int) -> int:
    start = messages.receive(requests)
    namespaces = bool(start["namespaces"])
    try:
        if namespaces:
            isolation.enter_namespaces()
    except NotIsolated as refused:
        messages.send(replies, {"not_isolated": str(refused)})
        return 0
    decoder = os.fork()
    if decoder:
        os.close(requests)
        os.close(replies)
        return _watch(decoder, lifeline)
    os.close(lifeline)
    return _decode(start, requests, replies, ring, namespaces=namespaces)


def _watch(decoder: int, lifeline: int) -> int:
    """Wait for the decoder, ending it when the parent is gone. The exit status is its own, 128 + signal if killed."""
    ended = os.pidfd_open(decoder)
    readable, _, _ = select.select([ended, lifeline], [], [])
    if ended not in readable:
        os.kill(decoder, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(decoder, 0)[1])
    return status if status >= 0 else 128 - status


def _decode(start: dict[str, Any], requests: int, replies: int, ring: int, *, namespaces: bool) -> int:
    try:
        places, held = close_off(start, namespaces=namespaces)
    except NotIsolated as refused:
        messages.send(replies, {"not_isolated": str(refused)})
        return 0
    try:
        if start["task"] == "hello":
            messages.send(replies, {"done": held})
        else:
            _run(start, places, requests, replies, ring)
    except SlideRefused as refused:
        messages.send(replies, {"refused": refused.code.value, "message": refused.message})
    except WsiError as error:
        messages.send(replies, {"failed": str(error)})
    except MemoryError:
        messages.send(replies, {"refused": RefusalCode.OUT_OF_MEMORY.value, "message": ""})
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        messages.send(replies, {"refused": RefusalCode.NO_SPACE.value, "message": ""})
    except messages.Closed:
        return 0
    return 0


def close_off(start: dict[str, Any], *, namespaces: bool) -> tuple[dict[str, Path], dict[str, bool]]:
    """Take everything away. Where slide, output, associated and store are from now on, and which of the walls hold that
    not every kernel offers."""
    outside = {
        name: Path(start[name]) for name in ("slide", "store", "checked", "output", "associated") if start.get(name)
    }
    places = outside
    files = [(Path(name), Path(name)) for name in start["files"]]
    if namespaces:
        places = {name: _SLIDE / path.name if name == "slide" else Path("/") / name for name, path in outside.items()}
        files = [(_SLIDE / path.name, path) for _, path in files]
    store = [(places[name], outside[name]) for name in ("store", "checked") if name in outside]
    writable = [(places[name], outside[name]) for name in ("output", "associated") if name in outside]
    view = View((*files, *store), tuple(writable))
    if namespaces:
        isolation.show_only(view, code=_CODE)
    os.environ["TMPDIR"] = str(places.get("output", "/nowhere"))
    os.umask(0o077)
    os.nice(int(start.get("nice", 0)))
    isolation.limit_resources(**start["limits"])
    isolation.limit_processes()
    isolation.drop_privileges()
    isolation.die_with_parent()
    held = {"landlock": isolation.allow_only_view(view, code=_CODE), "filter": syscall_filter.install()}
    return places, held


def _run(start: dict[str, Any], places: dict[str, Path], requests: int, replies: int, ring: int) -> None:
    if start["task"] == "unpack":
        from slides.wsi import archives

        members = archives.unpack(
            places["slide"],
            places["output"],
            room_bytes=start["room_bytes"],
            free_bytes=start["free_bytes"],
            on_progress=_progress_to(replies),
        )
        messages.send(replies, {"done": {"members": [member.to_json() for member in members]}})
        return
    from slides.wsi.reader import open_slide

    override = tuple(start["mpp_override"]) if start.get("mpp_override") else None
    with open_slide(
        places["slide"], mpp_override=override, store=places.get("store"), checked=places.get("checked")
    ) as reader:
        if start["task"] == "describe":
            described = {"properties": reader.properties.to_json(), "store": reader.store_plan.to_json()}
            messages.send(replies, {"done": described})
        elif start["task"] == "prepare":
            from slides.wsi import preparing  # SciPy takes half a second to load: only where it is used

            made = preparing.prepare_slide(
                reader,
                places["output"],
                places.get("associated"),
                _progress_to(replies),
                first_look_above=int(start["first_look_above"]),
            )
            messages.send(replies, {"done": made})
        else:
            messages.send(replies, {"done": {"properties": reader.properties.to_json()}})
            _serve_pixels(reader, requests, replies, ring)


def _progress_to(replies: int) -> Any:
    return lambda stage, fraction: messages.send(replies, {"stage": stage, "fraction": float(fraction)})


def _serve_pixels(reader: Any, requests: int, replies: int, ring: int) -> None:
    """Answer reads in the order they come, into the shared memory at the place the parent names."""
    import numpy as np

    shared = np.frombuffer(mmap.mmap(ring, 0), np.uint8)
    while True:
        request = messages.receive(requests)
        width, height, at = request["width"], request["height"], request["at"]
        try:
            pixels = reader.read_at_mpp(request["x0"], request["y0"], width, height, request["mpp"])
        except WsiError as error:
            messages.send(replies, {"id": request["id"], "error": str(error)})
            continue
        size = width * height
        shared[at : at + 3 * size] = pixels.rgb.reshape(-1)
        shared[at + 3 * size : at + 4 * size] = pixels.failed.reshape(-1)
        messages.send(replies, {"id": request["id"]})


if __name__ == "__main__":
    code = main(*(int(argument) for argument in sys.argv[1:5]))
    sys.stdout.flush()
    os._exit(code)
