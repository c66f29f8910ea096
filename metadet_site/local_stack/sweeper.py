"""The last net: ends what is left of a stack whose guard and supervisor were both killed -9 at once.

It stands outside the family, so that nothing which ends the family ends it, and waits for the end of a pipe that only the
guard and the supervisor hold. Processes of the stack are known by a mark in their environment, and by being below one.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from metadet_site.local_stack import processes
from metadet_site.local_stack.home import REPOSITORY, Home, withdraw

MARK = "METADET_STACK"
# What the kernel's death signals started may end by itself.
PATIENCE_S = 6.0


def start(home: Home) -> tuple[str, int]:
    """Starts the sweeper; answers the mark's value and the pipe's end to hold. Call before adopting orphans."""
    mark = secrets.token_hex(16)
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:  # the sweeper becomes init's child: two forks
        os.close(writing)
        subprocess.Popen(
            [sys.executable, "-m", "metadet_site.local_stack.sweeper", mark, str(home.folder)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        os._exit(0)
    os.waitpid(first, 0)
    os.close(reading)
    return mark, writing


def marked(mark: str) -> set[int]:
    """Living processes that carry the mark, and all below them."""
    needle = f"{MARK}={mark}".encode()
    table = processes.process_table()
    found: set[int] = set()
    for entry in table.values():
        if entry.alive and entry.pid != os.getpid():
            with contextlib.suppress(OSError):
                if needle in Path(f"/proc/{entry.pid}/environ").read_bytes():
                    found |= {entry.pid} | processes.descendants(entry.pid, table=table)
    return found


def main(mark: str, home: Home) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(sys.stdin.fileno(), 1)  # the end of the pipe: guard and supervisor are gone
    deadline = time.monotonic() + PATIENCE_S
    while left := marked(mark):
        if time.monotonic() > deadline:
            for pid in left:
                processes.send(pid, signal.SIGKILL)
        time.sleep(0.1)
    withdraw(home, of=mark)


if __name__ == "__main__":
    main(sys.argv[1], Home(Path(sys.argv[2])))
