"""The supervisor with small real children: health, restarts, orphans, order, and no survivors.

The supervisor adopts orphans and collects every child of its process, so each test runs it in a process of its own.
"""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.local_stack.process_watch import alive, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from metadet_site.local_stack.console import Console
from metadet_site.local_stack.errors import NotHealthy
from metadet_site.local_stack.supervisor import Service, StopAsked, Supervisor

here = Path(sys.argv[1])
supervisor = Supervisor(console=Console(), working_folder=here)
supervisor.take_signals()

def service(name, code, *, stage=1, ready="up", **more):
    return Service(name=name, command=[sys.executable, "-u", "-c", code], environment=dict(os.environ), stage=stage,
                   is_ready=lambda running: running.has_said(ready), **more)

def stop_when_asked(kind, error, trace):  # also while a child is still being started
    if kind is not StopAsked:
        return sys.__excepthook__(kind, error, trace)
    print("clean" if supervisor.stop() else "not clean", flush=True)

sys.excepthook = stop_when_asked
"""
WAITS = "print('up'); import time; time.sleep(600)"


class Script:
    """A supervisor process running the given lines."""

    def __init__(self, lines: str, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PREAMBLE + textwrap.dedent(lines),
                str(folder),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def number_in(self, name: str) -> int:
        """The number that a child writes into this file, once it is there."""
        wait_until((self.folder / name).exists, what=f"the file {name}")
        wait_until(lambda: (self.folder / name).read_text().endswith("\n"), what=f"the number in {name}")
        return int((self.folder / name).read_text())

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return output


def writes_its_number(file: str) -> str:
    return f"open({file!r}, 'w').write(str(os.getpid()) + chr(10))"


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    script = Script(
        f"""
        supervisor.start(service("one", "import os; {writes_its_number("one")}; " + {WAITS!r}))
        supervisor.watch()
        """,
        tmp_path,
    )
    first = script.number_in("one")
    (tmp_path / "one").unlink()
    os.kill(first, signal.SIGKILL)
    second = script.number_in("one")
    assert second != first
    output = script.end()
    assert "one was killed by SIGKILL; it is started again in 0.5 s." in output
    assert output.endswith("clean\n")
    assert not alive({first, second})


def test_a_child_that_never_gets_ready_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    script = Script(
        """
        try:
            supervisor.start(service("broken", "print('no such file: x'); raise SystemExit(3)"))
        except NotHealthy as error:
            print("given up:", error)
        supervisor.stop()
        """,
        tmp_path,
    )
    output, _ = script.process.communicate(timeout=60)
    assert "broken ended with exit code 3" in output
    assert "given up: broken did not become ready. Its last lines:\n    no such file: x" in output


def test_an_orphan_of_a_killed_child_does_not_live_on(tmp_path: Path) -> None:
    """A worker's decoder, in a session of its own, must not go on beside the next worker."""
    grandchild = f"import os, time; os.setsid(); {writes_its_number('grandchild')}; time.sleep(600)"
    script = Script(
        f"""
        code = '''import os, subprocess, sys, time
        {writes_its_number("child")}
        subprocess.Popen([sys.executable, "-c", {grandchild!r}])
        print("up"); time.sleep(600)'''.replace(chr(10) + " " * 8, chr(10))
        supervisor.start(service("worker", code))
        supervisor.watch()
        """,
        tmp_path,
    )
    child, grandchild_number = script.number_in("child"), script.number_in("grandchild")
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not alive({grandchild_number}), what="the orphan's end")
    assert script.end().endswith("clean\n")


def test_children_stop_in_falling_order_of_their_stages(tmp_path: Path) -> None:
    stops = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (print('stops'), exit(0))); " + WAITS
    script = Script(
        f"""
        for stage, name in enumerate(["store", "worker", "web"]):
            supervisor.start(service(name, {stops!r}, stage=stage))
        print("all up", flush=True)
        supervisor.watch()
        """,
        tmp_path,
    )
    assert script.process.stdout is not None
    while "all up" not in script.process.stdout.readline():
        pass
    lines = script.end().split("\n")
    assert [line.split(" | ")[0].strip() for line in lines if line.endswith("| stops")] == ["web", "worker", "store"]


def test_a_child_that_will_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = f"import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {writes_its_number('one')}; " + WAITS
    script = Script(
        f"""
        supervisor.start(service("stubborn", {stubborn!r}, grace_s=0.2))
        supervisor.watch()
        """,
        tmp_path,
    )
    child = script.number_in("one")
    output = script.end()
    assert "stubborn did not stop in 0.2 s; it is killed." in output
    assert output.endswith("not clean\n")
    assert not alive({child})


def test_a_command_is_run_to_its_end_and_its_lines_may_be_kept_back(tmp_path: Path) -> None:
    script = Script(
        """
        say = [sys.executable, "-c", "print('link'); raise SystemExit(4)"]
        print(supervisor.run_once("shown", say, dict(os.environ)))
        print(supervisor.lines_of(say, dict(os.environ)))
        supervisor.stop()
        """,
        tmp_path,
    )
    output, _ = script.process.communicate(timeout=60)
    assert output == "    shown | link\n4\n(4, ['link'])\n"


def test_a_long_line_and_bytes_that_are_no_text_pass(tmp_path: Path) -> None:
    script = Script(
        """
        code = "import sys; sys.stdout.buffer.write(b'x' * 100_000 + bytes([255]) + b' end')"
        supervisor.run_once("loud", [sys.executable, "-c", code], dict(os.environ))
        supervisor.stop()
        """,
        tmp_path,
    )
    output, _ = script.process.communicate(timeout=60)
    assert output.count("x") >= 100_000
    assert output.endswith("\ufffd end\n")


def test_the_last_words_of_a_child_are_shown_however_it_ends(tmp_path: Path) -> None:
    """A pipe holds 64 KiB: of more, the rest is written when the first is read, and the child has ended before it is."""
    script = Script(
        """
        code = "import os; os.write(1, b'a' * 65536); os.write(1, b'last words'); os._exit(0)"
        for _ in range(40):
            supervisor.run_once("brief", [sys.executable, "-S", "-c", code], dict(os.environ))
        supervisor.stop()
        """,
        tmp_path,
    )
    output, _ = script.process.communicate(timeout=60)
    assert output.count("last words") == 40


def test_what_services_say_when_they_are_stopped_is_shown(tmp_path: Path) -> None:
    ends = "import os, signal; signal.signal(15, lambda *_: (os.write(1, b'a' * 65536), os.write(1, b'gone'), os._exit(0)));"
    script = Script(
        f"""
        supervisor.start(*(service(f"s{{n}}", {ends + WAITS!r}) for n in range(8)))
        (here / "one").write_text("1" + chr(10))
        supervisor.watch()
        """,
        tmp_path,
    )
    assert script.number_in("one") == 1
    assert script.end().count("gone") == 8
