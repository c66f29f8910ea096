"""An upload through the real server that is killed again and again arrives byte for byte."""

import hashlib
import http.client
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from accounts.models import User
from slides.models import Slide, Upload
from tests.slides.served import announcement, ask, free_port, kill, request_headers, server

MIB = 2**20
CHUNK_BYTES = 8 * MIB  # as the page sends
MOST_MEMORY_BYTES = 64 * MIB


class MadeFile:
    """So many bytes that are never there at once: blocks of noise, each with its number."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._noise = random.Random(7).randbytes(MIB)

    def pieces(self, start: int, end: int, size: int = 2**18) -> Iterator[bytes]:
        """`start` need not lie on the border of a piece."""
        while start < end:
            block, within = divmod(start, MIB)
            data = (block.to_bytes(8, "big") + self._noise[8:])[within : within + min(size, end - start)]
            yield data
            start += len(data)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.length, MIB):
            digest.update(piece)
        return digest.hexdigest()


def send_until(
    port: int, url: str, headers: dict[str, str], data: MadeFile, offset: int, end: Callable[[int], None]
) -> int:
    """Sends chunk after chunk as the page does, telling `end` of every piece; how far sending got."""
    sent = offset
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        while sent < data.length:
            chunk_end = min(sent + CHUNK_BYTES, data.length)
            link.putrequest("PATCH", url)
            facts = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(sent)}
            for name, value in (headers | facts | {"Content-Length": str(chunk_end - sent)}).items():
                link.putheader(name, value)
            link.endheaders()
            for piece in data.pieces(sent, chunk_end):
                link.send(piece)
                sent += len(piece)
                end(sent)
            answer = link.getresponse()
            answer.read()
            assert answer.status == 204
    except (OSError, http.client.HTTPException):
        pass  # killed: that is what the test is for
    finally:
        link.close()
    return sent


def memory_bytes(process: subprocess.Popen[bytes], fact: str) -> int:
    """VmRSS (now) or VmHWM (the most there ever was) of all processes of the server together."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if os.getsid(int(status.parent.name)) == process.pid and fact in facts:
                total += int(facts[fact].split()[0]) * 1024
    return total


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kills", "length"),
    [(5, 100 * MIB), pytest.param(50, 5 << 30, marks=pytest.mark.slow)],
    ids=["5 kills over 100 MiB", "50 kills over 5 GiB"],
)
def test_kills_in_the_middle_lose_nothing_and_cost_a_chunk_each(
    person: Callable[..., User], home: Path, kills: int, length: int
) -> None:
    chance = random.Random(kills)
    data = MadeFile(length)
    sha256 = data.sha256()
    headers = request_headers(person)
    port, url = free_port(), ""
    sent, resent, growth = 0, [], []

    def kill_at(place: int, process: subprocess.Popen[bytes], before: int) -> Callable[[int], None]:
        def look(reached: int) -> None:
            if reached >= place and process.poll() is None:
                growth.append(memory_bytes(process, "VmHWM") - before)
                kill(process)

        return look

    for number in range(kills + 1):
        with server(port, home) as process:
            if not url:
                announced = headers | announcement(length, filename="a.svs", case="S1", sha256=sha256)
                status, answered, body = ask(port, "POST", "/api/uploads/", announced)
                assert status == 201, body
                url = answered["Location"]
            offset = int(ask(port, "HEAD", url, headers)[1]["Upload-Offset"])
            assert 0 <= offset <= sent
            resent.append(sent - offset)
            upload = Upload.objects.get()
            assert upload.offset == offset <= upload.path.stat().st_size, "only what is on disk counts"
            before = memory_bytes(process, "VmRSS")
            place = int(length * (number + chance.uniform(0.1, 0.9)) / (kills + 1)) if number < kills else length + 1
            sent = send_until(port, url, headers, data, offset, kill_at(place, process, before))
            if number == kills:
                growth.append(memory_bytes(process, "VmHWM") - before)
    slide = Slide.objects.get()
    with slide.source_path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == slide.sha256 == sha256
    assert (slide.size_bytes, sent, len(growth)) == (length, length, kills + 1)
    print(f"sent again at most {max(resent)} bytes, {sum(resent)} in all; memory grew by at most {max(growth)} bytes")
    assert sum(number > 0 for number in resent) > kills // 2, "the kills fell into the middle of chunks"
    assert max(resent) <= CHUNK_BYTES
    assert max(growth) <= MOST_MEMORY_BYTES


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_large_piece_never_stands_in_memory(person: Callable[..., User], home: Path) -> None:
    length = 768 * MIB
    headers = request_headers(person)
    port = free_port()
    with server(port, home) as process:
        announced = headers | announcement(length, filename="a.svs", case="S1")
        url = ask(port, "POST", "/api/uploads/", announced)[1]["Location"]
        before = memory_bytes(process, "VmRSS")
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        piece = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0", "Content-Length": str(length)}
        link.request("PATCH", url, MadeFile(length).pieces(0, length), headers | piece)
        assert link.getresponse().status == 204
        link.close()
        assert memory_bytes(process, "VmHWM") - before <= MOST_MEMORY_BYTES
    assert Slide.objects.get().source_path.stat().st_size == length
