"""Several requests at one upload, or at one file, through the real server: one wins, and no bytes are mixed."""

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from slides.enums import UploadState
from slides.models import Slide, Upload
from tests.slides.conftest import sha256
from tests.slides.served import announcement, ask, free_port, request_headers, server

MIB = 2**20
PIECE = {"Content-Type": "application/offset+octet-stream"}

pytestmark = pytest.mark.django_db(transaction=True)


class Site:
    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.port, self.headers = port, headers

    def announce(self, data: bytes, **facts: str) -> str:
        facts = {"filename": "a.svs", "case": "S1"} | facts
        status, answered, body = ask(
            self.port, "POST", "/api/uploads/", self.headers | announcement(len(data), **facts)
        )
        assert status == 201, body
        return str(answered["Location"])

    def offset(self, url: str) -> int:
        status, answered, _ = ask(self.port, "HEAD", url, self.headers)
        assert status == 200
        return int(answered["Upload-Offset"])

    def patch(self, url: str, data: bytes, offset: int) -> tuple[int, str]:
        facts = self.headers | PIECE | {"Upload-Offset": str(offset)}
        status, _, body = ask(self.port, "PATCH", url, facts, data)
        return status, body.decode()

    def begin(self, url: str, offset: int, length: int) -> http.client.HTTPConnection:
        """A PATCH whose bytes are still to come."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.putrequest("PATCH", url)
        facts = self.headers | PIECE | {"Upload-Offset": str(offset), "Content-Length": str(length)}
        for name, value in facts.items():
            link.putheader(name, value)
        link.endheaders()
        return link


@contextmanager
def site(person: Callable[..., User], home: Path, **environment: str) -> Iterator[Site]:
    headers, port = request_headers(person), free_port()
    with server(port, home, **environment):
        yield Site(port, headers)


def until(condition: Callable[[], Any], what: str) -> None:
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError(f"{what} did not come to pass")


def noise(seed: int, length: int = 4 * MIB) -> bytes:
    return random.Random(seed).randbytes(length)


def test_one_file_sent_twice_at_the_same_time_becomes_one_slide(person: Callable[..., User], home: Path) -> None:
    data = noise(1)
    answers: list[tuple[int, str]] = []
    with site(person, home) as here:
        urls = [here.announce(data, case=case, sha256=sha256(data)) for case in ("S1", "S2")]
        links = [here.begin(url, 0, len(data)) for url in urls]
        for start in range(0, len(data), MIB):  # side by side, to the last byte
            for link in links:
                link.send(data[start : start + MIB])
        for link in links:
            answer = link.getresponse()
            answers.append((answer.status, answer.read().decode()))
            link.close()
    assert sorted(status for status, _ in answers) == [204, 400]
    assert "This file is here already" in max(answers)[1]
    assert Slide.objects.get().source_path.read_bytes() == data
    assert set(Upload.objects.values_list("state", flat=True)) == {UploadState.COMPLETE, UploadState.REFUSED}
    assert list((home / "uploads").iterdir()) == []


def test_a_second_window_waits_for_the_first_and_then_finds_it_done(person: Callable[..., User], home: Path) -> None:
    data = noise(2)
    half = len(data) // 2
    with site(person, home, METADET_UPLOAD_SILENT_SECONDS="60") as here:
        url = here.announce(data)
        first = here.begin(url, 0, len(data))
        first.send(data[:half])
        upload = Upload.objects.get()
        until(lambda: upload.path.stat().st_size > 0, "the first window's turn")
        status, body = here.patch(url, noise(3), 0)
        assert status == 409
        assert "in another window" in body
        first.send(data[half:])
        assert first.getresponse().status == 204
        first.close()
        assert here.offset(url) == len(data)
    assert Slide.objects.get().source_path.read_bytes() == data


def test_a_lost_connection_gives_way_and_can_write_nothing_more(person: Callable[..., User], home: Path) -> None:
    """The first connection stays open and says nothing, as when a cable was pulled; then it wakes up."""
    data, wrong = noise(4), noise(5)
    half = len(data) // 2
    with site(person, home, METADET_UPLOAD_SILENT_SECONDS="1") as here:
        url = here.announce(data, sha256=sha256(data))
        lost = here.begin(url, 0, len(data))
        lost.send(wrong[:half])
        upload = Upload.objects.get()
        until(lambda: upload.path.stat().st_size > 0, "the lost connection's turn")
        seen: list[int] = []

        def gone_on_with() -> bool:
            link = here.begin(url, here.offset(url), MIB)
            link.send(data[:MIB])
            seen.append(link.getresponse().status)
            link.close()
            return seen[-1] == 204

        until(gone_on_with, "the end of the silence")
        assert set(seen) <= {409, 204}
        offset = here.offset(url)
        assert offset == MIB, "what the lost connection had not counted is forgotten"
        second = here.begin(url, offset, len(data) - offset)
        second.send(data[offset:half])
        until(lambda: upload.path.stat().st_size > offset, "the second connection's turn")
        lost.send(wrong[half:])
        assert lost.getresponse().status == 409
        lost.close()
        second.send(data[half:])
        assert second.getresponse().status == 204
        second.close()
    assert Slide.objects.get().source_path.read_bytes() == data


def test_two_who_go_on_at_the_same_moment_never_mix_their_bytes(person: Callable[..., User], home: Path) -> None:
    rounds = 20
    with site(person, home) as here:
        for number in range(rounds):
            one, other = noise(2 * number, MIB), noise(2 * number + 1, MIB)
            url = here.announce(one, filename=f"{number}.svs")
            together = threading.Barrier(2)
            answers: list[int] = []

            def go_on(
                data: bytes, url: str = url, together: threading.Barrier = together, answers: list[int] = answers
            ) -> None:
                together.wait(timeout=30)
                answers.append(here.patch(url, data, 0)[0])

            threads = [threading.Thread(target=go_on, args=(data,)) for data in (one, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
            assert sorted(answers) == [204, 409]
            assert Slide.objects.get(file_name=f"{number}.svs").source_path.read_bytes() in (one, other)
    assert Slide.objects.count() == rounds


def test_the_kernel_looks_whether_the_other_side_is_still_there(person: Callable[..., User], home: Path) -> None:
    """A connection whose other side is gone without a word must not keep a thread of the server for ever."""
    with site(person, home) as here:
        link = http.client.HTTPConnection("127.0.0.1", here.port, timeout=60)
        link.connect()
        ours = f"{link.sock.getsockname()[1]:04X}"
        until(lambda: _timer_of(here.port, ours) is not None, "the accepted connection")
        assert _timer_of(here.port, ours) == KEEP_ALIVE
        link.close()


KEEP_ALIVE = "02"


def _timer_of(port: int, peer: str) -> str | None:
    """Which timer the kernel runs for the server's side of a connection: proc(5), /proc/net/tcp, `tr`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, timer, *_ = line.split()
        if (local.split(":")[1], remote.split(":")[1], state) == (f"{port:04X}", peer, "01"):
            return timer.split(":")[0]
    return None
