"""Tiles through the real server process: what HTTP itself adds or takes, and many browsers at once."""

import http.client
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from slides import tile_access
from slides.models import Slide
from tests.slides.conftest import give_access, logged_in
from tests.slides.served import free_port, server

pytestmark = pytest.mark.django_db(transaction=True)

CONNECTIONS = 1_100  # above the 1,024 that granian and a usual limit of open files would allow

PATIENCE_S = 10  # below the 30 s after which granian closes idle connections, and a waiting one would get its turn


@pytest.fixture
def opened(reader: User, ready_slide: Slide) -> tuple[str, str]:
    """(address of a tile, cookie)"""
    give_access(reader, ready_slide)
    client: Client = logged_in(reader)
    answer = client.post(f"/api/slides/{ready_slide.pk}/view/", {}, content_type="application/json")
    cookie = f"{tile_access.COOKIE_NAME}={answer.cookies[tile_access.COOKIE_NAME].value}"
    return f"{answer.json()['tiles']}0/0_0.jpg", cookie


@pytest.fixture
def link(opened: tuple[str, str], home: Any) -> Any:
    """The server begins with the limit of open files that a login shell usually has."""
    port = free_port()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    with server(port, home):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
        try:
            yield lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Link = Callable[[], http.client.HTTPConnection]


def ask(link: http.client.HTTPConnection, address: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link.request(method, address, headers=named)
    answer = link.getresponse()
    return answer.status, answer.headers, answer.read()


def test_one_connection_carries_every_kind_of_answer(link: Link, opened: tuple[str, str]) -> None:
    """HEAD and 304 have no body: one byte too many, and the next answer on the connection is read wrongly."""
    address, cookie = opened
    connection = link()
    status, headers, tile = ask(connection, address, cookie=cookie)
    assert (status, headers["Content-Length"], tile[:2]) == (200, str(len(tile)), b"\xff\xd8")
    status, head, body = ask(connection, address, "HEAD", cookie=cookie)
    assert (status, head["Content-Length"], head["ETag"], body) == (200, str(len(tile)), headers["ETag"], b"")
    status, known, body = ask(connection, address, cookie=cookie, if_none_match=headers["ETag"])
    assert (status, known["ETag"], body) == (304, headers["ETag"], b"")
    status, piece, body = ask(connection, address, cookie=cookie, range="bytes=10-19")
    assert (status, piece["Content-Range"], body) == (206, f"bytes 10-19/{len(tile)}", tile[10:20])
    assert ask(connection, address, cookie=cookie, range="bytes=99999999-")[0] == 416
    assert ask(connection, address)[0] == 404
    assert ask(connection, address, "POST", cookie=cookie)[0] == 405
    assert ask(connection, address, cookie=cookie)[2] == tile


@pytest.mark.skipif(
    not hasattr(os, "SCHED_BATCH"), reason="this system cannot tell threads not to interrupt each other"
)
def test_no_thread_that_answers_interrupts_another(opened: tuple[str, str], home: Any) -> None:
    address, cookie = opened
    port = free_port()
    with server(port, home) as supervisor:
        assert ask(http.client.HTTPConnection("127.0.0.1", port), address, cookie=cookie)[0] == 200
        [worker] = [
            int(pid) for pid in Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        ]
        threads = [int(task.name) for task in Path(f"/proc/{worker}/task").iterdir()]
        assert len(threads) > 4
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_open_connections_of_others_keep_nobody_waiting(link: Link, opened: tuple[str, str]) -> None:
    address, cookie = opened
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CONNECTIONS + 200:
        pytest.skip("this account may not open that many connections")
    connections = [link() for _ in range(CONNECTIONS)]
    try:
        assert [ask(connection, address, "HEAD", cookie=cookie)[0] for connection in connections] == [200] * CONNECTIONS
    finally:
        for connection in connections:
            connection.close()
