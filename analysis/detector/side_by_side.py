"""Some work for each of many things, a few at once, with the answers in the order of the things."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")


def side_by_side(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], Answer]], *, at_once: int) -> Iterator[Answer]:
    """Each call in `pool`. `calls` is gone through by the caller's own thread, never further than `at_once` + 1 ahead: what
    makes them (reading pixels, asking whether to stop) may wait or raise there."""
    waiting: deque[Future[Answer]] = deque()
    for call in calls:
        waiting.append(pool.submit(call))
        if len(waiting) > at_once:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
