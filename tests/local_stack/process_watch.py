"""Finds every process that a stack left, and waits for a state of the world without guessing how long it takes."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from metadet_site.local_stack import processes


def wait_until(condition: Callable[[], object], *, what: str, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {patience_s:g} s"
        time.sleep(0.05)


def alive(pids: set[int]) -> set[int]:
    table = processes.process_table()
    return {pid for pid in pids if pid in table and table[pid].alive}


def with_words_in_environment(words: str) -> set[int]:
    """Living processes that were started with these words in their environment or on their command line."""
    found = set()
    for entry in processes.process_table().values():
        if entry.alive and entry.pid != os.getpid():
            for name in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    if words.encode() in Path(f"/proc/{entry.pid}/{name}").read_bytes():
                        found.add(entry.pid)
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
