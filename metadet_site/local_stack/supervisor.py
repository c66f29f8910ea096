"""Starts the children, waits until each is healthy, shows their lines, restarts what dies, stops all in order.

One thread and one loop: children are forked from the main thread alone, so that the kernel's death signal is bound to the
life of the process, and no lock can be held by another thread at the moment of a fork.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metadet_site.local_stack import processes
from metadet_site.local_stack.console import Console
from metadet_site.local_stack.errors import NotHealthy

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
HEALTHY_AFTER_S = 60.0  # a child that lived so long starts again with the first backoff
STILL_WAITING_S = 10.0
_MOST_LEFT_READS = 64  # of 64 KiB; a pipe holds one of them


@dataclass(frozen=True)
class Service:
    """A child that lives as long as the stack."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stage: int  # stages start in rising order and stop in falling order
    is_ready: Callable[["Running"], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    popen: Mapping[str, Any] = field(default_factory=dict)
    before_start: Callable[[], None] = lambda: None


class Running:
    """A service as it is now."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.ready = False
        self.failures = 0
        self.start_again_at: float | None = None
        self.last_lines: list[str] = []

    @property
    def alive(self) -> bool:
        return self.process is not None

    def has_said(self, words: str) -> bool:
        """Whether a line since the last start held these words."""
        return any(words in line for line in self.last_lines)


class StopAsked(Exception):
    """A signal asked the stack to stop; raised only between two rounds of the loop."""


class Supervisor:
    """Owns the children of one stack. Use: start(...) stage by stage, run_once(...) between, watch(), stop()."""

    def __init__(self, *, console: Console, working_folder: Path, kept_open: Sequence[int] = ()) -> None:
        self._console = console
        self._working_folder = working_folder
        self._kept_open = tuple(kept_open)
        self._running: dict[str, Running] = {}
        self._one_offs: set[int] = set()
        self._one_off_codes: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}
        self._captured: dict[str, list[str]] = {}
        self._stop_asked: signal.Signals | None = None
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    # -- signals --------------------------------------------------------------------------------

    def take_signals(self) -> None:
        """SIGINT, SIGTERM and SIGHUP ask for a stop in order; a second one cuts the waiting short."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop
        processes.adopt_orphans()

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        if self._stop_asked is not None and self._stopping:
            for running in self._running.values():
                if running.process is not None:
                    processes.kill_session(running.process.pid)
        self._stop_asked = signal.Signals(number)

    # -- the loop -------------------------------------------------------------------------------

    def _turn(self, *, wait_s: float) -> None:
        """One round: shows waiting lines, collects dead children, starts again what is due."""
        for key, _ in self._selector.select(wait_s):
            if key.fd == self._wake_read:
                self._drain_wake()
            else:
                self._read_lines(key.fd, key.data)
        self._collect()
        self._start_due()
        if self._stop_asked is not None and not self._stopping:
            raise StopAsked(self._stop_asked.name)

    def _drain_wake(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def _read_lines(self, descriptor: int, name: str) -> None:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        *lines, rest = (self._partial.get(descriptor, b"") + data).split(b"\n")
        if not data or len(rest) > 16384:  # closed, or a line without an end
            lines, rest = ([*lines, rest] if rest else lines), b""
        self._partial[descriptor] = rest
        for line in lines:
            text = line.decode("utf-8", "replace")
            if name in self._captured:
                self._captured[name].append(text)
                continue
            self._console.child_line(name, text)
            if name in self._running:
                self._running[name].last_lines = [*self._running[name].last_lines[-199:], text]
        if not data:
            self._selector.unregister(descriptor)
            self._partial.pop(descriptor, None)
            os.close(descriptor)

    def _read_last_lines(self, names: Container[str]) -> None:
        """What waits in the pipes of these children, all of it where they have ended. Who is alive, or inherited a pipe, may go on
        to speak: hence not for ever."""
        for _ in range(_MOST_LEFT_READS):
            waiting = [key for key, _ in self._selector.select(0) if key.fd != self._wake_read and key.data in names]
            if not waiting:
                return
            for key in waiting:
                self._read_lines(key.fd, key.data)

    def _collect(self) -> None:
        ended = processes.reap_all()
        for pid, code in ended.items():
            if pid in self._one_offs:
                self._one_offs.remove(pid)
                self._one_off_codes[pid] = code
                continue
            for running in self._running.values():
                if running.process is not None and running.process.pid == pid:
                    running.process.returncode = code  # collected here, Popen must not wait for it again
                    self._on_death(running, code)
        if ended:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """A child of ours that we did not start lost its parent (a worker's slide decoder, a pool process): it must go.

        Else a killed worker's child would go on computing and writing beside its successor.
        """
        ours = self._one_offs | {running.process.pid for running in self._running.values() if running.process}
        table = processes.process_table()
        for entry in table.values():
            if entry.parent == os.getpid() and entry.pid not in ours and entry.alive:
                for pid in (entry.pid, *processes.descendants(entry.pid, table=table)):
                    processes.send(pid, signal.SIGKILL)

    def _on_death(self, running: Running, code: int) -> None:
        assert running.process is not None
        processes.kill_session(running.process.pid)
        running.process = None
        running.ready = False
        if self._stopping:
            return
        if time.monotonic() - running.started > HEALTHY_AFTER_S:
            running.failures = 0
        pause = min(FIRST_BACKOFF_S * 2**running.failures, LONGEST_BACKOFF_S)
        running.failures += 1
        running.start_again_at = time.monotonic() + pause
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._console.say(f"{running.service.name} {how}; it is started again in {pause:g} s.")

    def _start_due(self) -> None:
        for running in self._running.values():
            if running.start_again_at is not None and time.monotonic() >= running.start_again_at and not self._stopping:
                running.start_again_at = None
                running.service.before_start()
                self._spawn_service(running)

    # -- starting -------------------------------------------------------------------------------

    def _spawn(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        popen: Mapping[str, Any],
        dies_by: signal.Signals,
    ) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=self._working_folder,
                env=dict(environment),
                pass_fds=self._kept_open,
                preexec_fn=processes.before_exec(death_signal=dies_by),  # safe: one thread, see the module
                **popen,
            )
        finally:
            os.close(writing)
        self._selector.register(reading, selectors.EVENT_READ, name)
        return process

    def _spawn_service(self, running: Running) -> None:
        service = running.service
        running.last_lines = []
        running.started = time.monotonic()
        running.process = self._spawn(
            service.name, service.command, service.environment, service.popen, service.stop_signal
        )

    def start(self, *services: Service, patience_s: float = 120.0) -> None:
        """Starts these together and waits until all are healthy.

        Raises NotHealthy when one dies three times before it is ready, or is alive but not ready after `patience_s`.
        """
        waiting = [Running(service) for service in services]
        for running in waiting:
            self._running[running.service.name] = running
            self._spawn_service(running)
        began = said = time.monotonic()
        while not all(running.ready for running in waiting):
            self._turn(wait_s=0.05)
            for running in waiting:
                if running.alive and not running.ready and running.service.is_ready(running):
                    running.ready = True
                    self._console.say(f"{running.service.name} is ready ({time.monotonic() - began:.1f} s).")
                if running.failures >= 3:
                    raise NotHealthy(self._account(running))
            now = time.monotonic()
            unready = [running for running in waiting if not running.ready]
            if unready and now - began > patience_s:
                raise NotHealthy(self._account(unready[0]))
            if unready and now - said > STILL_WAITING_S:
                said = now
                names = ", ".join(running.service.name for running in unready)
                self._console.say(f"Still waiting for {names} ({now - began:.0f} s).")

    def _account(self, running: Running) -> str:
        self._read_last_lines({running.service.name})
        last = "\n".join(f"    {line}" for line in running.last_lines[-8:]) or "    (it said nothing)"
        return f"{running.service.name} did not become ready. Its last lines:\n{last}"

    def run_once(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Runs a command to its end while the others are watched; answers its exit code (negative: the signal)."""
        process = self._spawn(name, command, environment, {}, signal.SIGTERM)
        self._one_offs.add(process.pid)
        while process.pid not in self._one_off_codes:
            self._turn(wait_s=0.2)
        process.returncode = self._one_off_codes.pop(process.pid)
        self._read_last_lines({name})
        return process.returncode

    def lines_of(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, list[str]]:
        """As run_once, but what it says is answered, not shown."""
        name = f"lines of {command}"
        self._captured[name] = []
        code = self.run_once(name, command, environment)
        return code, self._captured.pop(name)

    def watch(self) -> None:
        """Goes on until a signal asks to stop; then raises StopAsked."""
        while True:
            self._turn(wait_s=1.0)
            for running in self._running.values():
                if running.alive and not running.ready and running.service.is_ready(running):
                    running.ready = True
                    self._console.say(f"{running.service.name} is ready again.")

    # -- stopping -------------------------------------------------------------------------------

    def stop(self) -> bool:
        """Stops stage by stage, the last started first; answers whether every child ended without being killed."""
        self._stopping = True
        clean = True
        for pid in list(self._one_offs):
            processes.kill_session(pid)
        for stage in sorted({running.service.stage for running in self._running.values()}, reverse=True):
            members = [running for running in self._running.values() if running.service.stage == stage]
            for running in members:
                if running.process is not None:
                    processes.send(running.process.pid, running.service.stop_signal)
            began = time.monotonic()
            while alive := [running for running in members if running.process is not None]:
                self._turn(wait_s=0.1)
                for running in alive:
                    if running.process is not None and time.monotonic() - began > running.service.grace_s:
                        self._console.say(
                            f"{running.service.name} did not stop in {running.service.grace_s:g} s; it is killed."
                        )
                        processes.kill_session(running.process.pid)
                        clean = False
            self._read_last_lines({running.service.name for running in members})
        processes.end_all_below(os.getpid(), patience_s=1.0)
        return clean
