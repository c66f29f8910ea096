"""A real Chromium on the real web server, which serves the test database with the product's own rights."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from metadet_site.local_stack import processes
from metadet_site.local_stack.postgres import Cluster
from metadet_site.local_stack.up import answers
from tests.faults.conftest import broker, start  # noqa: F401  (fixtures)
from tests.local_stack.process_watch import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
HOW_TO_GET_ONE = (
    "No Chromium: `apt-get install chromium`, or `.venv/bin/playwright install chromium`; BROWSER=no leaves this out."
)


def find_chromium(playwright: Playwright) -> str:
    """METADET_CHROMIUM, the system's, or Playwright's own; fails the test with one line where there is none."""
    candidates = [os.environ.get("METADET_CHROMIUM"), *map(shutil.which, SYSTEM_NAMES)]
    candidates.append(playwright.chromium.executable_path)
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.fail(HOW_TO_GET_ONE, pytrace=False)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    # Playwright's loop runs in this thread; the ORM is used beside it, never inside.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                  "--disable-sync", "--no-first-run"],
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh window. An error of the page's scripts or a refused content policy fails the test."""
    context = chromium.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on(
        "console",
        lambda message: (
            faults.append(f"{page.url}: {message.text}") if "Content Security Policy" in message.text else None
        ),
    )
    yield page
    context.close()
    assert not faults


@pytest.fixture
def site(transactional_db: None, database_cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The address of granian serving metadet_site.wsgi on the test database, as metadet_app."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    home = Path(os.environ.get("METADET_HOME", tmp_path / "home"))
    (home / "static").mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
         "--blocking-threads", "4", "--no-ws", "--log-level", "warning", "metadet_site.wsgi:application"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "DATABASE_URL": database_cluster.url("metadet_app", database=quote(connection.settings_dict["NAME"])),
            "METADET_SECRET_KEY": "only-for-the-browser-tests" * 3,
            "METADET_HOME": str(home),
            "METADET_PROCESS": "web",
        },
        preexec_fn=processes.before_exec(death_signal=signal.SIGTERM),
    )  # fmt: skip
    try:
        wait_until(lambda: answers(port) or server.poll() is not None, what="the web server")
        assert server.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
        processes.kill_session(server.pid)
        server.wait()
