"""The decoding child without its half second of imports: a process that has loaded the libraries forks one per slide.

What runs after the fork is slides.wsi.child.main, unchanged: own namespaces, limits, Landlock, system call filter. Only
`exec` of a fresh interpreter is left out. The slow tests start real ones.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]


class WarmStarter:
    """Takes the place of the module `subprocess` where children are started."""

    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._server = subprocess.Popen(
            [sys.executable, "-E", "-s", "-B", "-m", "tests.slides.corpus.warm_child", str(theirs.fileno())],
            cwd=_ROOT,
            env=dict(environment),
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def Popen(self, command: Sequence[str], **options: Any) -> "WarmChild":
        numbers = [int(number) for number in command[-4:]]
        read, write = os.pipe()
        message = json.dumps({"numbers": numbers}).encode()
        socket.send_fds(self._socket, [message], [*numbers, options["stdout"], write])
        os.close(write)
        return WarmChild(read)

    def close(self) -> None:
        self._socket.close()
        self._server.wait(timeout=30)


class WarmChild:
    """As much of subprocess.Popen as the parent's side uses. `cpu_seconds`: used by all of them so far."""

    cpu_seconds = 0.0

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "rb")
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            import select

            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("child", timeout or 0.0)
            code, cpu = (self._status.readline() or b"-9 0").split()
            self.returncode = int(code)
            WarmChild.cpu_seconds += float(cpu)
            self._status.close()
        return self.returncode

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


@contextmanager
def started_warm(sandbox: Any) -> Iterator[None]:
    """Children of slides.wsi.sandbox are forked from a warm process until the end."""
    starter, cold = WarmStarter(sandbox.ENVIRONMENT), sandbox.subprocess
    sandbox.subprocess = starter
    try:
        yield
    finally:
        sandbox.subprocess = cold
        starter.close()


def serve(requests: int) -> None:
    import slides.wsi.child as child
    import slides.wsi.preparing
    import slides.wsi.reader  # noqa: F401 loaded here, once

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=requests) as source:
        while True:
            message, descriptors, _, _ = socket.recv_fds(source, 4096, 6)
            if not message:
                return
            if os.fork() == 0:
                source.close()
                _watch(json.loads(message)["numbers"], list(descriptors), child.main)
            for descriptor in descriptors:
                os.close(descriptor)


def _watch(numbers: list[int], descriptors: list[int], main: Any) -> None:
    """Fork the child with its descriptors under the numbers it is told, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *inherited, log, status = descriptors
    moved = [os.dup2(descriptor, 200 + place) for place, descriptor in enumerate([*inherited, log, status])]
    for descriptor in descriptors:
        os.close(descriptor)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(moved[-1])
        for number, descriptor in zip([*numbers, 1, 2], [*moved[:4], moved[4], moved[4]], strict=True):
            os.dup2(descriptor, number)
        for descriptor in moved[:-1]:
            os.close(descriptor)
        code = 1
        try:
            code = main(*numbers)
        except BaseException:  # noqa: BLE001 what an interpreter prints and exits with
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    for descriptor in moved[:-1]:
        os.close(descriptor)
    os.write(moved[-1], f"{pid}\n".encode())
    _, status_word, used = os.wait4(pid, 0)
    cpu = used.ru_utime + used.ru_stime  # of the warden and, through it, of the decoder
    os.write(moved[-1], f"{os.waitstatus_to_exitcode(status_word)} {cpu:.3f}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
