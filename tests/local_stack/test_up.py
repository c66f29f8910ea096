"""`manage.py up` with everything real: it comes up, heals, refuses a second one, and leaves nothing behind."""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from metadet_site.local_stack import processes, valkey
from metadet_site.local_stack.home import published
from tests.local_stack.process_watch import alive, command_line, wait_until, with_words_in_environment

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
REPOSITORY = Path(__file__).resolve().parents[2]
CHILDREN = ["postgres", "valkey", "web", "ingest", "check", "detect", "evaluate", "scheduler"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Stack:
    """One `manage.py up` with a METADET_HOME of its own."""

    def __init__(self, home: Path, *, prefix: tuple[str, ...] = (), **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.output = home.with_suffix(f".{self.port}.out")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("METADET_", "DJANGO_", "PYTEST_"))
        }
        with self.output.open("wb") as output:
            self.guard = subprocess.Popen(
                [*prefix, sys.executable, str(REPOSITORY / "manage.py"), "up"],
                env={
                    **kept,
                    "METADET_HOME": str(home),
                    "METADET_PORT": str(self.port),
                    "METADET_DEMO": "no",
                    **environment,
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until_up(self) -> None:
        wait_until(
            lambda: self.guard.poll() is not None or "Everything is up" in self.said(), what="start", patience_s=180
        )
        assert self.guard.poll() is None, self.said()

    def page_status(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/accounts/login/")
            return connection.getresponse().status
        return 0

    @property
    def supervisor(self) -> int:
        """Its number; 0 while it cannot be seen."""
        assert self.guard.poll() is None, f"the stack has ended:\n{self.said()[-4000:]}"
        return next((pid for pid in self.everything() if "local_stack.up" in command_line(pid)), 0)

    def everything(self) -> set[int]:
        """All that belongs to this stack: below the guard, or started with its home."""
        return processes.descendants(self.guard.pid) | with_words_in_environment(str(self.home))

    def child(self, name: str) -> int:
        """The number of the named child's first process."""
        marks = {
            "postgres": f"-D {self.home / 'postgres' / 'data'}",
            "valkey": "valkey.sock",
            "web": "granian --interface",
            "ingest": "worker -Q ingest",
            "check": "worker -Q check",
            "detect": "worker -Q detect",
            "evaluate": "worker -Q evaluate",
            "scheduler": "run_scheduler",
        }
        table = processes.process_table()
        supervisor = self.supervisor
        return next(
            (
                pid
                for pid in self.everything()
                if pid in table and table[pid].parent == supervisor and self._is(name, pid, marks[name])
            ),
            0,
        )

    def _is(self, name: str, pid: int, mark: str) -> bool:
        line = command_line(pid)
        return mark in line or (name == "valkey" and "valkey-server" in line) or (
            name in {"ingest", "check", "detect", "evaluate"} and f"celeryd: {name}@" in line
        )  # fmt: skip

    def kill(self, name: str) -> tuple[int, int]:
        """Kills the child -9; answers its number and its successor's."""
        before = self.child(name)
        assert before, f"{name} does not run: {self.said()[-2000:]}"
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.child(name) not in {0, before}, what=f"{name} starts again")
        return before, self.child(name)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.guard.poll() is None:
            self.guard.send_signal(number)
        return self.guard.wait(timeout=90)

    def sockets(self) -> Path | None:
        with contextlib.suppress(OSError, ValueError):
            return Path(json.loads((self.home / "running.json").read_text())["socket_folder"])
        return None

    def ready_again(self, name: str) -> bool:
        return f"{name} is ready again." in self.said()


@pytest.fixture(scope="module")
def parent_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="metadet up "))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def stacks(parent_folder: Path) -> Iterator[Callable[..., Stack]]:
    """Starts stacks and ends them, whatever the test did."""
    started: list[Stack] = []

    def starter(name: str = "a home", **options: object) -> Stack:
        started.append(Stack(parent_folder / name, **options))  # type: ignore[arg-type]
        return started[-1]

    yield starter
    for stack in started:
        left = stack.everything()
        stack.stop()
        for pid in left:
            processes.send(pid, signal.SIGKILL)


@pytest.fixture
def start(parent_folder: Path) -> Iterator[Callable[..., Stack]]:
    with stacks(parent_folder) as starter:
        yield starter


@pytest.fixture(scope="module")
def stack(parent_folder: Path) -> Iterator[Stack]:
    """One stack for the tests from here to the one that kills its supervisor: each start costs seconds."""
    with stacks(parent_folder) as starter:
        stack = starter()
        stack.wait_until_up()
        yield stack


def assert_nothing_left(stack: Stack, *, of: set[int]) -> None:
    wait_until(
        lambda: not alive(of) and not with_words_in_environment(str(stack.home)), what="the end of all", patience_s=40
    )


def test_it_serves_a_page_and_runs_every_part(stack: Stack) -> None:
    assert stack.page_status() == 200
    assert all(stack.child(name) for name in CHILDREN)


def test_a_second_one_on_the_same_home_is_refused_in_words(stack: Stack) -> None:
    second = Stack(stack.home)
    assert second.guard.wait(timeout=60) == 1
    assert f"already runs in {stack.home} (process {stack.guard.pid})" in second.said()
    assert stack.page_status() == 200


@pytest.mark.parametrize("name", ["web", "ingest", "detect", "scheduler"])
def test_the_product_is_given_its_own_password_and_not_the_owners(stack: Stack, name: str) -> None:
    environment = Path(f"/proc/{stack.child(name)}/environ").read_bytes()
    assert b"metadet_app:" in environment
    assert b"metadet_owner" not in environment


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_comes_back(stack: Stack, name: str) -> None:
    before, after = stack.kill(name)
    assert before != after
    wait_until(lambda: stack.ready_again(name), what=f"{name} is ready again", patience_s=90)


def test_after_all_those_kills_all_parts_work_together(stack: Stack) -> None:
    wait_until(lambda: stack.page_status() == 200, what="a page")
    sockets = stack.sockets()
    assert sockets is not None
    assert valkey.is_ready(sockets)
    with psycopg.connect(published(stack.home)["METADET_DATABASE_OWNER_URL"]) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM django_migrations").fetchone() == (True,)


def test_a_killed_supervisor_leaves_nothing(stack: Stack) -> None:
    everything = stack.everything()
    assert len(everything) > len(CHILDREN) + 5  # pool processes, server processes, backends
    sockets = stack.sockets()
    os.kill(stack.supervisor, signal.SIGKILL)
    assert stack.guard.wait(timeout=60) == 128 + signal.SIGKILL
    assert_nothing_left(stack, of=everything)
    assert sockets is not None
    assert not sockets.exists()


def test_the_next_start_works_and_stops_clean(start: Callable[..., Stack]) -> None:
    again = start()
    again.wait_until_up()
    assert again.page_status() == 200
    assert "Bringing the database up to date" not in again.said()  # it was, and nothing has changed
    everything = again.everything()
    sockets = again.sockets()
    assert again.stop(signal.SIGTERM) == 0, again.said()[-3000:]
    assert again.said().endswith("Stopped.\n")
    assert_nothing_left(again, of=everything)
    assert sockets is not None
    assert not sockets.exists()
    assert published(again.home) == {}


def test_a_taken_port_is_refused_in_words(start: Callable[..., Stack]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        stack = start("port taken", METADET_PORT=port)
        assert stack.guard.wait(timeout=60) == 1
    assert f"port {port} (METADET_PORT) is used by another program" in stack.said()


@pytest.mark.slow
def test_given_servers_are_used_and_none_is_started(
    start: Callable[..., Stack], database_cluster, tmp_path: Path
) -> None:
    queue_folder = Path(tempfile.mkdtemp(prefix="q"))
    queue = subprocess.Popen(valkey.command(valkey.find_valkey(), data=tmp_path, socket_folder=queue_folder))
    try:
        wait_until(lambda: valkey.is_ready(queue_folder), what="the given Valkey")
        stack = start(
            "given servers",
            DATABASE_URL=database_cluster.url("metadet_app"),
            METADET_DATABASE_OWNER_URL=database_cluster.url("metadet_owner"),
            CELERY_BROKER_URL=valkey.url(queue_folder),
        )
        stack.wait_until_up()
        assert stack.page_status() == 200
        assert not stack.child("postgres")
        assert not stack.child("valkey")
        assert stack.stop() == 0
        assert "DATABASE_URL is set" in stack.said()
        assert not (stack.home / "postgres" / "data").exists()
    finally:
        queue.terminate()
        queue.wait()
        shutil.rmtree(queue_folder)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [["guard"], ["guard", "supervisor"]], ids=" and ".join)
def test_whoever_of_the_watch_is_killed_nothing_is_left(start: Callable[..., Stack], victims: list[str]) -> None:
    stack = start()
    stack.wait_until_up()
    everything = stack.everything()
    numbers = [{"guard": stack.guard.pid, "supervisor": stack.supervisor}[victim] for victim in victims]
    for number in numbers:
        os.kill(number, signal.SIGKILL)
    assert_nothing_left(stack, of=everything)
    again = start()
    again.wait_until_up()
    assert again.stop(signal.SIGINT) == 0


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "--user", "--map-user=1000", "true"], capture_output=True).returncode != 0,
    reason="this machine lends no user namespace to act as an ordinary user in",
)
def test_it_runs_for_an_ordinary_user(start: Callable[..., Stack]) -> None:
    stack = start("ordinary", prefix=("unshare", "--user", "--map-user=1000", "--map-group=1000"))
    stack.wait_until_up()
    assert stack.page_status() == 200
    assert stack.stop() == 0


@pytest.mark.slow
def test_thirty_kills_of_any_child_heal(start: Callable[..., Stack]) -> None:
    stack = start("storm")
    stack.wait_until_up()
    chosen = random.Random(1)
    for _ in range(30):
        name = chosen.choice(CHILDREN)
        wait_until(lambda name=name: stack.child(name), what=f"{name} runs", patience_s=90)
        os.kill(stack.child(name), signal.SIGKILL)
    wait_until(lambda: all(stack.child(name) for name in CHILDREN), what="all run", patience_s=90)
    wait_until(lambda: stack.page_status() == 200, what="a page", patience_s=90)
    everything = stack.everything()
    assert stack.stop() == 0
    assert_nothing_left(stack, of=everything)
