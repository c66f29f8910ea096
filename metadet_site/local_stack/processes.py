"""Starting, finding and ending processes so that none is ever left behind (Linux; the session is used elsewhere).

Three nets, because a process can slip through each of the first two: a session of its own per child (setsid), a signal
from the kernel when the parent dies (PR_SET_PDEATHSIG), and adoption of every orphan below us (PR_SET_CHILD_SUBREAPER).
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Looked up before any fork: between fork and exec nothing may be imported or allocated by the loader.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if LINUX else None


def adopt_orphans() -> None:
    """From now on a descendant whose parent dies becomes this process's child instead of init's."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(*, by: signal.Signals, parent: int) -> None:
    """The kernel sends `by` to this process when the thread that forked it ends. For use right after a fork or at start."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(by), 0, 0, 0)
        if os.getppid() != parent:  # died between the fork and the line above
            os._exit(1)


def before_exec(*, death_signal: signal.Signals) -> Callable[[], None]:
    """The preexec_fn of a child: own session, default signals, dies with its parent."""
    parent = os.getpid()

    def prepare() -> None:
        os.setsid()  # the terminal's Ctrl-C reaches the guard alone, which stops the children in order
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        die_with_parent(by=death_signal, parent=parent)

    return prepare


@dataclass(frozen=True)
class Entry:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    state: str

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"


def process_table() -> dict[int, Entry]:
    """All processes by pid; empty where there is no /proc."""
    table: dict[int, Entry] = {}
    if not LINUX:
        return table
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in brackets may hold spaces and brackets: what counts follows the last one.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                pid = int(folder.name)
                table[pid] = Entry(pid=pid, parent=int(fields[1]), session=int(fields[3]), state=fields[0])
    return table


def descendants(root: int, *, table: dict[int, Entry] | None = None) -> set[int]:
    """Pids of all living processes below `root`."""
    entries = process_table() if table is None else table
    children: dict[int, list[int]] = {}
    for entry in entries.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), []):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    return {pid for pid in found if entries[pid].alive}


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_session(leader: int) -> None:
    """SIGKILL to all that still belong to the session that `leader` opened, and to all below it."""
    table = process_table()
    for pid in {entry.pid for entry in table.values() if entry.session == leader} | descendants(leader, table=table):
        send(pid, signal.SIGKILL)
    if not LINUX:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def reap_all() -> dict[int, int]:
    """Collects every child that has ended: pid -> exit code (negative: the signal)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def end_all_below(root: int, *, patience_s: float) -> None:
    """Waits up to `patience_s` for the processes below `root` to end by themselves, then ends them by SIGKILL."""
    deadline = time.monotonic() + patience_s
    while descendants(root):
        reap_all()
        if time.monotonic() >= deadline:
            for pid in descendants(root):
                send(pid, signal.SIGKILL)
        time.sleep(0.05)
    reap_all()
