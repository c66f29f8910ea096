"""Shared memory between parent and child for pixels read ahead: a ring of places, taken in the order they were asked."""

import fcntl
import mmap
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from slides.wsi.pixels import Pixels

LARGEST_READ_PIXELS = 1 << 24


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Level-0 position, size in wanted pixels, um per wanted pixel."""

    x0: float
    y0: float
    width: int
    height: int
    mpp: float

    @property
    def byte_count(self) -> int:
        return self.width * self.height * 4  # three colours and the failed mask


class PixelRing:
    """The parent gives out places, the child fills them, the parent copies them out: first in, first out."""

    def __init__(self, byte_count: int) -> None:
        self._size = max(byte_count, LARGEST_READ_PIXELS * 4)
        self.descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self._size)
        # neither side can change the size any more: a ring shrunk by the child would end the parent with SIGBUS
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._memory = mmap.mmap(self.descriptor, self._size)
        self._queue: deque[tuple[int, int, ReadRequest]] = deque()  # id, place, request
        self._ids = 0

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def next_id(self) -> int:
        return self._queue[0][0]

    def is_next(self, request: ReadRequest) -> bool:
        return bool(self._queue) and self._queue[0][2] == request

    def fits(self, request: ReadRequest) -> bool:
        return self._free_place(request.byte_count) is not None

    def place(self, request: ReadRequest) -> dict[str, Any]:
        """The message that asks the child for `request`. The ring must have room (`fits`)."""
        at = self._free_place(request.byte_count)
        if at is None:
            raise ValueError("the ring is full")
        self._ids += 1
        self._queue.append((self._ids, at, request))
        return {
            "id": self._ids,
            "at": at,
            "x0": request.x0,
            "y0": request.y0,
            "width": request.width,
            "height": request.height,
            "mpp": request.mpp,
        }

    def _free_place(self, byte_count: int) -> int | None:
        if not self._queue:
            return 0 if byte_count <= self._size else None
        oldest = self._queue[0][1]
        _, newest, request = self._queue[-1]
        end = newest + request.byte_count
        if newest >= oldest:
            if end + byte_count <= self._size:
                return end
            return 0 if byte_count < oldest else None
        return end if end + byte_count < oldest else None

    def take(self) -> Pixels:
        """The oldest read, copied out; its place is free again."""
        _, at, request = self._queue.popleft()
        count = request.width * request.height
        data = np.frombuffer(self._memory, np.uint8, 4 * count, at)
        rgb = data[: 3 * count].reshape(request.height, request.width, 3).copy()
        marks = data[3 * count :].reshape(request.height, request.width)
        # nearly always nothing has failed: then nothing is written, in memory that would be new
        failed = marks != 0 if marks.max(initial=0) else np.broadcast_to(np.False_, marks.shape)
        return Pixels(rgb, failed)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)
