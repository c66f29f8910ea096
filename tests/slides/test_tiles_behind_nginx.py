"""The optional nginx that answers for tiles itself: a real one, with the files of deploy/nginx, before the real server."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from slides import tile_access
from slides.models import Slide
from tests.conftest import REPOSITORY
from tests.local_stack.process_watch import wait_until
from tests.slides.conftest import give_access, logged_in
from tests.slides.served import ask, free_port, kill, server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]

KEY = "edge" * 12
NGINX = """
daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream metadet {{ server 127.0.0.1:{behind}; keepalive 8; }}
  {http}
  server {{ listen 127.0.0.1:{port}; set $edge_key "{key}"; set $metadet_revoked {home}/revoked;
    proxy_http_version 1.1; proxy_set_header Connection "";
    {server}
    location / {{ proxy_pass http://metadet; }} }}
}}
"""


class Edge:
    """nginx on `port`, before a server that may be killed to show who answers."""

    def __init__(self, port: int, behind: Any) -> None:
        self.port, self.behind = port, behind

    def get(self, address: str, cookie: str = "", method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, method, address, named | {"Cookie": cookie})


@pytest.fixture
def edge(settings: Any, home: Path, tmp_path: Path, reader: User, ready_slide: Slide) -> Iterator[Edge]:
    settings.EDGE_KEY = KEY
    give_access(reader, ready_slide)
    port, behind = free_port(), free_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    texts = {
        name: (REPOSITORY / "deploy/nginx" / file).read_text().replace("/var/cache/nginx", str(folder))
        for name, file in (("http", "tiles-at-the-edge-http.conf"), ("server", "tiles-at-the-edge.conf"))
    }
    user = "user root;" if os.geteuid() == 0 else ""
    written = NGINX.format(folder=folder, port=port, behind=behind, home=home, key=KEY, user=user, **texts)
    (folder / "nginx.conf").write_text(written)
    with server(behind, home, METADET_EDGE_KEY=KEY) as process:
        nginx = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], start_new_session=True)
        try:
            wait_until(lambda: (folder / "nginx.pid").exists() or nginx.poll() is not None, what="nginx has started")
            assert nginx.poll() is None, (folder / "error.log").read_text()
            yield Edge(port, process)
        finally:
            os.killpg(nginx.pid, signal.SIGKILL)
            nginx.wait()


def opened(client: Client, slide: Slide) -> tuple[str, str]:
    """(address of the tiles, cookies)"""
    answer = client.post(f"/api/slides/{slide.pk}/view/", {}, content_type="application/json")
    assert answer.status_code == 200, answer.content
    names = (tile_access.COOKIE_NAME, tile_access.EDGE_COOKIE_NAME)
    assert answer.cookies[tile_access.EDGE_COOKIE_NAME]["httponly"]
    assert answer.cookies[tile_access.EDGE_COOKIE_NAME]["path"] == answer.cookies[tile_access.COOKIE_NAME]["path"]
    return answer.json()["tiles"], "; ".join(f"{name}={answer.cookies[name].value}" for name in names)


def test_a_tile_is_answered_without_us_and_only_to_who_may(
    edge: Edge, reader: User, ready_slide: Slide, person: Callable[..., User]
) -> None:
    client, other = logged_in(reader), person("second", Role.READER)
    give_access(other, ready_slide)
    tiles, cookie = opened(client, ready_slide)
    their_tiles, their_cookie = opened(logged_in(other), ready_slide)
    tile, theirs = f"{tiles}0/0_0.jpg", f"{their_tiles}0/0_0.jpg"
    status, headers, data = edge.get(tile, cookie)
    assert (status, data[:2], headers["Cache-Control"]) == (200, b"\xff\xd8", "private, max-age=60")
    assert edge.get(f"{tiles}descriptor.json", cookie)[0] == 200

    kill(edge.behind)  # what comes now comes from nginx alone
    assert edge.get(tile, cookie)[2] == data
    assert edge.get(theirs, their_cookie)[2] == data, "one tile, kept once, for both"
    status, known, body = edge.get(tile, cookie, if_none_match=headers["ETag"])
    assert (status, known["ETag"], body) == (304, headers["ETag"], b"")
    status, piece, body = edge.get(tile, cookie, range="bytes=10-19")
    assert (status, piece["Content-Range"], body) == (206, f"bytes 10-19/{len(data)}", data[10:20])
    status, head, body = edge.get(tile, cookie, "HEAD")
    assert (status, head["Content-Length"], body) == (200, str(len(data)), b"")

    spoiled = re.sub(r"(metadet_edge=.)(.)", lambda found: found[1] + ("A" if found[2] != "A" else "B"), cookie)
    for address, wrong in ((tile, ""), (tile, their_cookie), (theirs, cookie), (tile, spoiled)):
        for method in ("GET", "HEAD"):
            status, refused, _ = edge.get(address, wrong, method)
            assert (status, refused["Cache-Control"]) == (404, "no-store")
            assert refused["ETag"] is None

    client.post("/accounts/logout/")
    assert edge.get(tile, cookie)[0] == 404, "a log-out ends it at once"
    assert edge.get(theirs, their_cookie)[0] == 200
    tile_access.revoke(str(ready_slide.pk))
    assert edge.get(theirs, their_cookie)[0] == 404, "and so does a deletion"


def test_the_pass_ends_with_its_minute(edge: Edge, reader: User, ready_slide: Slide, settings: Any) -> None:
    tiles, cookie = opened(logged_in(reader), ready_slide)
    assert edge.get(f"{tiles}0/0_0.jpg", cookie)[0] == 200
    partition = tiles.split("/")[2]
    for until, status in ((int(time.time()) - 1, 404), (int(time.time()) + 30, 200)):
        made = tile_access.edge_pass(until, partition=partition, slide_id=ready_slide.pk, store=ready_slide.store)
        assert edge.get(f"{tiles}0/0_0.jpg", f"{tile_access.EDGE_COOKIE_NAME}={made}")[0] == status


def test_without_a_key_there_is_no_second_pass(reader: User, ready_slide: Slide) -> None:
    give_access(reader, ready_slide)
    answer = logged_in(reader).post(f"/api/slides/{ready_slide.pk}/view/", {}, content_type="application/json")
    assert tile_access.COOKIE_NAME in answer.cookies
    assert tile_access.EDGE_COOKIE_NAME not in answer.cookies
