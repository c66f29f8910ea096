"""Real workers around a test: queue server, Celery worker and scheduler as processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from metadet_site.local_stack import processes, valkey
from metadet_site.local_stack.home import make_socket_folder
from tests.conftest import REPOSITORY
from tests.local_stack.process_watch import wait_until
from tests.slides.conftest import home, operator, person, received  # noqa: F401  (fixtures)

QUICK = {"METADET_LEASE_SECONDS": "4", "METADET_HEARTBEAT_SECONDS": "1", "METADET_RECONCILE_SECONDS": "1"}


def database_url() -> str:
    facts = connection.settings_dict
    return f"postgresql://{facts['USER']}:{facts['PASSWORD']}@/{facts['NAME']}?host={facts['HOST']}"


@pytest.fixture
def broker() -> Iterator[str]:
    folder = make_socket_folder()
    process = subprocess.Popen(
        valkey.command(valkey.find_valkey(), data=folder, socket_folder=folder), stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: valkey.is_ready(folder), what="the queue server answers")
        yield valkey.url(folder)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(broker: str, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """start("worker", "detect") or start("scheduler"): the process, with the test's database and state folder."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ,
        **QUICK,
        "DATABASE_URL": database_url(),
        "CELERY_BROKER_URL": broker,
        "METADET_HOME": str(settings.METADET_HOME),
        "METADET_SECRET_KEY": "x" * 50,
        "OMP_NUM_THREADS": "1",
    }

    def start_process(what: str, queue: str = "") -> "subprocess.Popen[bytes]":
        commands = {
            "worker": [
                "-m",
                "celery",
                "-A",
                "metadet_site",
                "worker",
                "-Q",
                queue,
                "-c",
                "1",
                "--without-gossip",
                "--without-mingle",
            ],
            "scheduler": ["manage.py", "run_scheduler"],
        }
        log = (tmp_path / f"{what}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, *commands[what]],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        family = processes.descendants(process.pid) | {process.pid}
        for pid in family:
            processes.send(pid, signal.SIGKILL)
        process.wait()
