"""A decoder that crashes, hangs or takes too much memory: its slide says why, the pages answer, the next slide works."""

import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from accounts.models import User
from jobs.enums import JobKind
from slides import ingest
from slides.enums import SlideState, TileCheck
from slides.models import Slide
from slides.wsi import sandbox
from tests.slides.conftest import check_now, logged_in, prepare_now, write_slide

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {name: {"isEntry": True, "name": name, "file": f"{name}.js"} for name in ("pages", "upload", "viewer")}
    monkeypatch.setattr("metadet_site.templatetags.frontend.read_manifest", lambda _: manifest)


@pytest.fixture
def not_process_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of a namespace takes no signal sent from outside but SIGKILL and SIGSTOP: as on a machine without."""
    monkeypatch.setattr(sandbox._Kernel, "_missing", ("own namespaces: left out by this test", []))


def children_of(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return [int(child) for task in tasks for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except FileNotFoundError:
        return []


def decoders() -> list[int]:
    """Below this process stand wardens, below these the decoders."""
    wardens = [pid for pid in children_of(os.getpid()) if b"slides.wsi.child" in command_of(pid)]
    return [decoder for warden in wardens for decoder in children_of(warden)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@contextmanager
def sent_to_the_decoder(number: signal.Signals) -> Iterator[list[int]]:
    """The signal reaches the next decoder that starts, as soon as it is there."""
    hit: list[int] = []
    end = threading.Event()

    def wait_and_send() -> None:
        while not end.is_set():
            for pid in decoders():
                os.kill(pid, number)
                hit.append(pid)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=wait_and_send)
    thread.start()
    try:
        yield hit
    finally:
        end.set()
        thread.join()


def assert_pages_answer(operator: User, slide: Slide) -> None:
    client = logged_in(operator)
    for path in ("/slides/", f"/slides/{slide.pk}/", f"/api/slides/{slide.pk}/"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert slide.reason.split("(")[0] in answer.content.decode()


@pytest.mark.usefixtures("not_process_1")
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGSEGV, "decoder_crashed", "ended by signal 11"),
        (signal.SIGKILL, "decoder_crashed", "ended by signal 9"),  # what the kernel does when memory runs out
        (signal.SIGSTOP, "decoder_timeout", "made no progress for 5 seconds"),
    ],
    ids=["a crash", "killed by the kernel", "a hang"],
)
def test_a_decoder_that_is_lost_is_a_reason_and_no_more(
    received: Callable[..., Slide], operator: User, settings: Any, number: signal.Signals, code: str, words: str
) -> None:
    patience = settings.DECODER_STALL_SECONDS
    settings.DECODER_STALL_SECONDS = 5 if number == signal.SIGSTOP else patience
    slide = received()
    with sent_to_the_decoder(number) as hit:
        slide = prepare_now(slide.pk)
    assert len(hit) == 1
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, code)
    assert words in slide.reason
    assert decoders() == []
    assert_pages_answer(operator, slide)
    settings.DECODER_STALL_SECONDS = patience
    ingest.retry(slide_id=slide.pk, actor=operator)
    assert prepare_now(slide.pk).state == SlideState.READY


def test_a_file_that_takes_too_much_memory_is_refused(
    received: Callable[..., Slide], operator: User, settings: Any, tmp_path: Path
) -> None:
    settings.DECODER_MEMORY_BYTES = 1 << 30
    side = 20_000
    bomb = zlib.compress(bytes(side * side * 3), 9)  # one strip: 1.2 GB from 1 MB
    tifffile.imwrite(tmp_path / "bomb.tif", iter([bomb]), shape=(side, side, 3), dtype=np.uint8, photometric="rgb",
                     compression="adobe_deflate", rowsperstrip=side, metadata=None)  # fmt: skip
    slide = prepare_now(received(tmp_path / "bomb.tif").pk)
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, "out_of_memory")
    assert_pages_answer(operator, slide)
    assert prepare_now(received(write_slide(tmp_path / "good.svs"), case="S2").pk).state == SlideState.READY


@pytest.mark.usefixtures("first_look", "not_process_1")
def test_a_decoder_lost_while_it_checks_leaves_the_slide_viewable(
    received: Callable[..., Slide], operator: User
) -> None:
    slide = prepare_now(received().pk)
    with sent_to_the_decoder(signal.SIGSEGV):
        slide = check_now(slide.pk)
    assert (slide.state, slide.tile_check) == (SlideState.READY, TileCheck.FAILED)
    assert "ended by signal 11" in slide.tile_check_reason
    answer = logged_in(operator).get(f"/api/slides/{slide.pk}/").json()
    assert (answer["tile_check"], answer["check_job"]["kind"]) == ("failed", JobKind.CHECK_SLIDE)
    assert logged_in(operator).get(f"/slides/{slide.pk}/look/").status_code == 200
