"""How parent and child talk: length-prefixed JSON over pipes. The parent trusts nothing that it receives."""

import json
import os
import select
import struct
import time
from typing import Any

LARGEST_MESSAGE = 4 << 20


class Closed(Exception):
    """The other side has gone."""


class TimedOut(Exception):
    """Nothing came in time."""


class BadMessage(Exception):
    """What came is no message."""


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Raises Closed when nobody reads any more."""
    body = json.dumps(message).encode("utf-8")
    data = memoryview(struct.pack("<I", len(body)) + body)
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BrokenPipeError as error:
            raise Closed from error


def receive(descriptor: int, *, deadline: float | None = None) -> dict[str, Any]:
    """The next message. `deadline` by time.monotonic(). Raises Closed, TimedOut or BadMessage."""
    (length,) = struct.unpack("<I", _exactly(descriptor, 4, deadline))
    if length > LARGEST_MESSAGE:
        raise BadMessage(f"a message of {length} bytes")
    try:
        message = json.loads(_exactly(descriptor, length, deadline))
    except (ValueError, RecursionError) as error:
        raise BadMessage(str(error)) from error
    if not isinstance(message, dict):
        raise BadMessage("not an object")
    return message


def _exactly(descriptor: int, length: int, deadline: float | None) -> bytes:
    pieces = bytearray()
    while len(pieces) < length:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimedOut
        piece = os.read(descriptor, length - len(pieces))
        if not piece:
            raise Closed
        pieces += piece
    return bytes(pieces)
