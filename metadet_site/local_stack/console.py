"""What the person in front of the terminal sees: the supervisor's own words, and each child's lines under its name."""

import contextlib
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

COLOURS = {
    "postgres": 34,
    "valkey": 35,
    "migrate": 36,
    "web": 32,
    "ingest": 33,
    "check": 33,
    "detect": 93,
    "evaluate": 93,
    "scheduler": 96,
    "demo": 36,
}
LOG_LIMIT_BYTES = 20 * 2**20
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """Prints to the terminal and to METADET_HOME/log/up.log. A closed terminal is no reason to stop."""

    def __init__(self, *, log_file: Path | None = None, stream: TextIO = sys.stdout) -> None:
        self._stream: TextIO | None = stream
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ
        self._log_file = log_file
        self._log = self._open_log()
        self._written = 0

    def _open_log(self) -> TextIO | None:
        if self._log_file is None:
            return None
        if self._log_file.exists():
            self._log_file.replace(self._log_file.with_suffix(".previous.log"))
        return open(self._log_file, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600))

    def say(self, words: str = "", *, secret: bool = False) -> None:
        """The supervisor's own words; may be several lines. A secret is shown and not logged."""
        for line in words.split("\n"):
            self._write(name="", line=line, colour=1, logged=not secret)

    def child_line(self, name: str, line: str) -> None:
        """One line that a child wrote. Control characters are taken out: a child may print what a file told it."""
        self._write(name=name, line=_CONTROL.sub("", line.rstrip()), colour=COLOURS.get(name, 0))

    def _give_up_stream(self) -> None:
        """What is still buffered goes nowhere; else it fails once more when the process ends."""
        assert self._stream is not None
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = None

    def _write(self, *, name: str, line: str, colour: int, logged: bool = True) -> None:
        label = f"{name:>9} | " if name else ""
        if self._stream is not None:
            shown = f"\x1b[{colour}m{label}\x1b[0m{line}" if self._coloured and label else label + line
            try:
                print(shown, file=self._stream, flush=True)
            except (OSError, ValueError):  # the terminal or the pipe is gone
                self._give_up_stream()
        if self._log is not None and logged:
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            with contextlib.suppress(OSError):  # a full disk must not stop the stack; the terminal still shows the line
                self._written += self._log.write(f"{stamp} {label}{line}\n")
                self._log.flush()
            if self._written > LOG_LIMIT_BYTES:
                self._log.close()
                self._log, self._written = self._open_log(), 0
