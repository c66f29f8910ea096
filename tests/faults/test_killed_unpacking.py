"""kill -9 while an archive is unpacked: the next worker begins anew, and each slide is there once."""

import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from accounts.models import User
from audit_trail.models import Event
from jobs.models import Job
from metadet_site.local_stack import processes
from slides.models import Slide
from tests.faults.test_killed_check import decoders_below
from tests.local_stack.process_watch import wait_until
from tests.slides.conftest import Tus, logged_in, write_slide
from tests.slides.made_folders import mirax_files, write_files

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


MIB = 2**20


def archive_of(folder: Path) -> Path:
    path = folder / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted([*folder.glob("a.mrxs"), *folder.glob("a/*"), *folder.glob("b.svs")]):
            archive.write(each, each.relative_to(folder))
    return path


def sent(tus: Tus, path: Path) -> Slide:
    url = tus.create(path.stat().st_size, name=path.name)["Location"]
    with path.open("rb") as file:
        while piece := file.read(8 * MIB):
            assert tus.patch(url, piece, file.tell() - len(piece)).status_code == 204
    return Slide.objects.get()


def test_a_killed_unpacking_is_begun_anew(operator: User, start: Callable[..., object], tmp_path: Path) -> None:
    write_files(tmp_path, mirax_files("a"))
    write_slide(tmp_path / "b.svs")
    long_enough = tmp_path / "a" / "Data0001.dat"  # to be met while it is unpacked
    with long_enough.open("wb") as file:
        for number in range(256):
            file.write(number.to_bytes() * MIB)
    slide = sent(Tus(logged_in(operator)), archive_of(tmp_path))
    start("scheduler")
    worker = start("worker", "ingest")
    wait_until(
        lambda: any(slide.folder.glob("unpacked-*/0000")) and bool(decoders_below(worker.pid)),
        what="the archive is being unpacked",
        patience_s=120,
    )
    [decoder] = decoders_below(worker.pid)[:1]
    os.kill(decoder, signal.SIGSTOP)  # so that it cannot end before the kill
    for pid in [entry.pid for entry in processes.process_table().values() if entry.parent == worker.pid]:
        os.kill(pid, signal.SIGKILL)
    assert Slide.objects.get().is_packed, "the kill came before the slides were put in place"

    wait_until(
        lambda: list(Slide.objects.values_list("state", flat=True)) == ["ready", "ready"],
        what="both slides are ready",
        patience_s=180,
    )
    assert Job.objects.get(kind="prepare_slide", subject_id=slide.pk).attempt == 2
    assert Event.objects.filter(kind="slide_received").count() == Event.objects.filter(kind="slide_ready").count() == 2
    for each in Slide.objects.all():
        each_is = {"source", each.store} | set(each.earlier_stores)
        assert {path.name for path in each.folder.iterdir()} == each_is
        assert not list((each.folder / "source").glob("*.zip"))
    wait_until(lambda: not Path(f"/proc/{decoder}").exists(), what="the decoder has gone with its worker")
