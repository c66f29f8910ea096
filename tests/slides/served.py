"""The real server process over the test's own database, for what only a real process can show: being killed."""

import base64
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from accounts.enums import Role
from accounts.models import User
from metadet_site.local_stack.up import WEB_OPTIONS
from tests.slides.conftest import logged_in

CSRF = "k" * 32
PATIENCE_SECONDS = 60


def database_url() -> str:
    facts = connection.settings_dict
    host, port = facts["HOST"], facts["PORT"] or 5432
    place = f"/{facts['NAME']}?host={quote(host)}" if host.startswith("/") else f"{host}:{port}/{facts['NAME']}"
    return f"postgresql://{quote(facts['USER'])}:{quote(facts['PASSWORD'], safe='')}@{place}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(port: int, home: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """granian on `port`, answering; ended with all its children, by kill -9, at the end of the block."""
    env = os.environ | {
        "DATABASE_URL": database_url(),
        "METADET_HOME": str(home),
        "METADET_SECRET_KEY": settings.SECRET_KEY,
        "METADET_DISK_FLOOR_GB": "0",
        "METADET_PROCESS": "web",
        **environment,
    }
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--blocking-threads", "4", *WEB_OPTIONS]
    log = home / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--workers", "1", "metadet_site.wsgi:application"],
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait_for(port, process, log)
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of the server and all its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if ask(port, "GET", "/health/", {})[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{log.read_text()}") from None
        time.sleep(0.05)


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, Any, bytes]:
    """(status, headers, body)."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        link.request(method, path, body=body, headers=headers)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        link.close()


def request_headers(person: Callable[..., User]) -> dict[str, str]:
    """Of a logged-in operator who speaks tus."""
    session = logged_in(person("operator", Role.OPERATOR)).cookies["sessionid"].value
    return {
        "Cookie": f"sessionid={session}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "Tus-Resumable": "1.0.0",
    }


def announcement(length: int, **facts: str) -> dict[str, str]:
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in facts.items())
    return {"Upload-Length": str(length), "Upload-Metadata": metadata}
