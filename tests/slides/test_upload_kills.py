"""An upload through the real server that is killed again and again arrives byte for byte."""

import base64
import http.client
import random
import threading
from collections.abc import Callable
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
            pace.wait(0.005)  # as a network would: so that the kills fall into the middle
        link.getresponse().read()
    except (OSError, http.client.HTTPException):
        return  # killed: that is what the test is for
    finally:
        link.close()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_ten_kills_in_the_middle_lose_and_double_nothing(person: Callable[..., User], home: Path) -> None:
    chance = random.Random(7)
    data = chance.randbytes(96 * 2**20)
    session = logged_in(person("operator", Role.OPERATOR)).cookies["sessionid"].value
    headers = {
        "Cookie": f"sessionid={session}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "Tus-Resumable": "1.0.0",
    }
    facts = {"filename": "a.svs", "case": "S1", "sha256": sha256(data)}
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in facts.items())
    port = free_port()
    url = ""
    offsets: list[int] = []
    for _ in range(KILLS):
        with server(port, home) as process:
            if not url:
                create = headers | {"Upload-Length": str(len(data)), "Upload-Metadata": metadata}
                status, answered, body = ask(port, "POST", "/api/uploads/", create)
                assert status == 201, body
                url = answered["Location"]
            offset = int(ask(port, "HEAD", url, headers)[1]["Upload-Offset"])
            offsets.append(offset)
            sent: list[int] = [offset]
            sender = threading.Thread(target=slow_patch, args=(port, url, headers, data, offset, sent))
            sender.start()
            sender.join(timeout=chance.uniform(0.05, 0.4))
            kill(process)
            sender.join(timeout=30)
            counted = Upload.objects.get().offset
            assert offset <= counted <= len(data)
            assert counted <= (home / "uploads" / url.split("/")[-2]).stat().st_size
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
