"""An upload through the real server that is killed again and again arrives byte for byte."""

import base64
import http.client
import os
import random
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from accounts.enums import Role
from accounts.models import User
from slides.models import Slide, Upload
from tests.slides.conftest import logged_in, sha256
from tests.slides.served import ask, free_port, kill, server

KILLS = 10
CSRF = "k" * 32


def slow_patch(port: int, url: str, headers: dict[str, str], data: bytes, offset: int, sent: list[int]) -> None:
    """Sends the rest of the file in small pieces until it is done or the server is gone."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    pace = threading.Event()
    try:
        link.putrequest("PATCH", url)
        for name, value in headers.items():
            link.putheader(name, value)
        link.putheader("Content-Type", "application/offset+octet-stream")
        link.putheader("Content-Length", str(len(data) - offset))
        link.putheader("Upload-Offset", str(offset))
        link.endheaders()
        for start in range(offset, len(data), 2**18):
            link.send(data[start : start + 2**18])
            sent.append(min(start + 2**18, len(data)))
            pace.wait(0.01)  # as a network would: so that the kills fall into the middle
        link.getresponse().read()
    except (OSError, http.client.HTTPException):
        return  # killed: that is what the test is for
    finally:
        link.close()


def request_headers(person: Callable[..., User]) -> dict[str, str]:
    session = logged_in(person("operator", Role.OPERATOR)).cookies["sessionid"].value
    return {
        "Cookie": f"sessionid={session}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "Tus-Resumable": "1.0.0",
    }


def announcement(length: int, **facts: str) -> dict[str, str]:
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in facts.items())
    return {"Upload-Length": str(length), "Upload-Metadata": metadata}


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most memory any process of the server ever had (VmHWM)."""
    peaks = [0]
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if os.getsid(int(status.parent.name)) == process.pid and "VmHWM" in facts:
                peaks.append(int(facts["VmHWM"].split()[0]) * 1024)
    return max(peaks)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_large_piece_never_stands_in_memory(person: Callable[..., User], home: Path) -> None:
    length = 768 * 2**20
    headers = request_headers(person)
    port = free_port()
    with server(port, home) as process:
        announced = headers | announcement(length, filename="a.svs", case="S1")
        url = ask(port, "POST", "/api/uploads/", announced)[1]["Location"]
        before = peak_bytes(process)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        piece = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0", "Content-Length": str(length)}
        link.request("PATCH", url, (bytes(2**20) for _ in range(length // 2**20)), headers | piece)
        assert link.getresponse().status == 204
        link.close()
        assert peak_bytes(process) - before < 100 * 2**20
    assert Slide.objects.get().source_path.stat().st_size == length


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_ten_kills_in_the_middle_lose_and_double_nothing(person: Callable[..., User], home: Path) -> None:
    chance = random.Random(7)
    data = chance.randbytes(128 * 2**20)
    headers = request_headers(person)
    announced = announcement(len(data), filename="a.svs", case="S1", sha256=sha256(data))
    port = free_port()
    url = ""
    offsets: list[int] = []
    for _ in range(KILLS):
        with server(port, home) as process:
            if not url:
                status, answered, body = ask(port, "POST", "/api/uploads/", headers | announced)
                assert status == 201, body
                url = answered["Location"]
            offset = int(ask(port, "HEAD", url, headers)[1]["Upload-Offset"])
            offsets.append(offset)
            sent: list[int] = [offset]
            sender = threading.Thread(target=slow_patch, args=(port, url, headers, data, offset, sent))
            sender.start()
            sender.join(timeout=chance.uniform(0.3, 1.5))
            kill(process)
            sender.join(timeout=30)
            upload = Upload.objects.get()
            assert offset <= upload.offset <= len(data)
            moved = home / "slides" / str(upload.pk) / "source"
            stored = upload.path if upload.path.exists() else next(moved.iterdir())
            assert upload.offset <= stored.stat().st_size, "only what is on disk counts"
    with server(port, home):
        answer: Any = ask(port, "HEAD", url, headers)
        offset = int(answer[1]["Upload-Offset"])
        if offset < len(data):
            piece = headers | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
            status, answered, body = ask(port, "PATCH", url, piece, data[offset:])
            assert status == 204, body
    assert len(set(offsets)) > KILLS // 2, "the kills fell into the upload, not beside it"
    slide = Slide.objects.get()
    assert sha256(slide.source_path.read_bytes()) == slide.sha256 == sha256(data)
