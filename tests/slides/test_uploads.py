"""Files coming in by tus: every byte that was counted is safe, whatever happens in between."""

import base64
import hashlib
import io
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from audit_trail.models import Event
from jobs.models import Job
from slides import uploads
from slides.enums import UploadState
from slides.errors import UploadConflict
from slides.models import Case, Slide, Upload
from slides.upload_turns import turn
from tests.slides.conftest import Tus, logged_in, prepare_now, sha256, write_slide

pytestmark = pytest.mark.django_db


def kinds() -> list[str]:
    return list(Event.objects.exclude(kind="logged_in").order_by("seq").values_list("kind", flat=True))


def upload_of(response: Any) -> Upload:
    return Upload.objects.get(pk=response["Location"].rstrip("/").rsplit("/", 1)[-1])


def test_the_server_says_what_it_speaks(tus: Tus) -> None:
    answer = tus.client.options("/api/uploads/")
    assert answer.status_code == 204
    assert answer["Tus-Version"] == "1.0.0"
    assert set(answer["Tus-Extension"].split(",")) == {"creation", "checksum", "termination"}
    assert "sha1" in answer["Tus-Checksum-Algorithm"].split(",")
    assert int(answer["Tus-Max-Size"]) > 0


def test_a_file_becomes_a_slide_with_its_job_and_events(tus: Tus, operator: User, home: Path, tmp_path: Path) -> None:
    data = write_slide(tmp_path / "a.svs").read_bytes()
    answer = tus.send(data, name="Müller 1.SVS", case="S24-1", node="A1", sha256=sha256(data))
    assert (answer.status_code, answer["Upload-Offset"]) == (204, str(len(data)))
    slide = Slide.objects.get()
    assert slide.source_path.read_bytes() == data
    assert slide.source_path == home / "slides" / str(slide.pk) / "source" / f"{slide.pk}.svs"
    assert (slide.file_name, slide.case.accession, slide.node.label) == ("Müller 1.SVS", "S24-1", "A1")
    assert (slide.sha256, slide.created_by) == (sha256(data), operator)
    assert Job.objects.get().subject_id == slide.pk
    assert kinds() == ["case_created", "upload_started", "slide_received"]
    assert not any("ller" in event.body for event in Event.objects.all()), "file names can name a patient"
    assert list((home / "uploads").iterdir()) == []
    assert prepare_now(slide.pk).state == "ready"


def test_a_file_in_pieces_equals_the_file(tus: Tus, tmp_path: Path) -> None:
    data = write_slide(tmp_path / "a.svs").read_bytes()
    url = tus.create(data)["Location"]
    for start in range(0, len(data), 10_000):
        assert tus.head(url)["Upload-Offset"] == str(start)
        assert tus.patch(url, data[start : start + 10_000], start).status_code == 204
    assert Slide.objects.get().source_path.read_bytes() == data


def test_bytes_that_were_written_but_not_counted_are_cut_off(tus: Tus) -> None:
    """What a process that was killed between write and count leaves behind."""
    data = bytes(range(256)) * 40
    url = tus.create(data)["Location"]
    tus.patch(url, data[:3000], 0)
    upload = Upload.objects.get()
    with upload.path.open("ab") as file:
        file.write(b"never counted" * 100)
    assert tus.head(url)["Upload-Offset"] == "3000"
    tus.patch(url, data[3000:], 3000)
    assert Slide.objects.get().source_path.read_bytes() == data


def test_a_connection_that_breaks_keeps_what_came(operator: User, tus: Tus) -> None:
    class Breaking:
        def __init__(self) -> None:
            self.pieces = [b"x" * 500, b"y" * 500]

        def read(self, size: int, /) -> bytes:
            if not self.pieces:
                raise ConnectionResetError("gone")
            return self.pieces.pop(0)

    upload = upload_of(tus.create(5000))
    uploads.receive(upload_id=upload.pk, offset=0, size=5000, stream=Breaking())
    upload.refresh_from_db()
    assert upload.offset == 1000
    assert upload.path.read_bytes() == b"x" * 500 + b"y" * 500


def checksum(algorithm: str, data: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_piece_with_its_checksum_counts_when_it_is_right(tus: Tus, algorithm: str) -> None:
    data = bytes(range(256)) * 40
    url = tus.create(data, sha256=sha256(data))["Location"]
    damaged = tus.patch(url, b"?" + data[1:3000], 0, checksum=checksum(algorithm, data[:3000]))
    assert (damaged.status_code, damaged.json()["error"]) == (460, "piece_damaged")
    assert tus.head(url)["Upload-Offset"] == "0"
    assert tus.patch(url, data[:3000], 0, checksum=checksum(algorithm, data[:3000])).status_code == 204
    assert tus.patch(url, data[3000:], 3000, checksum=checksum(algorithm, data[3000:])).status_code == 204
    assert Slide.objects.get().source_path.read_bytes() == data


def test_a_piece_with_its_checksum_that_broke_off_is_forgotten(tus: Tus) -> None:
    upload = upload_of(tus.create(5000))
    announced = uploads.PieceChecksum("sha256", hashlib.sha256(b"x" * 5000).digest())
    uploads.receive(upload_id=upload.pk, offset=0, size=5000, stream=io.BytesIO(b"x" * 3000), checksum=announced)
    upload.refresh_from_db()
    assert upload.offset == 0


@pytest.mark.parametrize("said", ["md5 AAAA", "sha1 ?", "sha256"])
def test_a_checksum_that_cannot_be_read_is_refused(tus: Tus, said: str) -> None:
    url = tus.create(100)["Location"]
    answer = tus.patch(url, b"a" * 100, 0, checksum=said)
    assert answer.status_code in (400, 460)
    assert tus.head(url)["Upload-Offset"] == "0"


def test_a_wrong_offset_is_a_conflict_and_changes_nothing(tus: Tus) -> None:
    url = tus.create(1000)["Location"]
    tus.patch(url, b"a" * 100, 0)
    for offset in (0, 99, 101, 1000):
        assert tus.patch(url, b"b" * 100, offset).status_code == 409
    assert tus.head(url)["Upload-Offset"] == "100"
    assert Upload.objects.get().path.read_bytes() == b"a" * 100


def test_a_second_writer_is_turned_away(tus: Tus) -> None:
    upload = upload_of(tus.create(1000))
    with turn(upload.path):
        assert tus.patch(f"/api/uploads/{upload.pk}/", b"a" * 100, 0).status_code == 409
    assert tus.patch(f"/api/uploads/{upload.pk}/", b"a" * 100, 0).status_code == 204


def test_more_bytes_than_announced_are_refused_before_any_is_written(tus: Tus) -> None:
    url = tus.create(100)["Location"]
    answer = tus.patch(url, b"a" * 101, 0)
    assert answer.status_code == 413
    assert Upload.objects.get().path.read_bytes() == b""


def test_a_wrong_content_type_is_415(tus: Tus) -> None:
    url = tus.create(100)["Location"]
    assert tus.patch(url, b"a" * 100, 0, content_type="application/octet-stream").status_code == 415
    assert tus.head(url)["Upload-Offset"] == "0"


def test_another_version_of_tus_is_412(tus: Tus) -> None:
    answer = tus.client.generic(
        "POST", "/api/uploads/", content_type="", headers={"Tus-Resumable": "0.2.2", "Upload-Length": "1"}
    )
    assert (answer.status_code, answer["Tus-Version"]) == (412, "1.0.0")


@pytest.mark.parametrize("length", ["", "-1", "x", "9" * 30])
def test_an_upload_without_a_usable_length_is_refused(tus: Tus, length: str) -> None:
    answer = tus.client.generic(
        "POST", "/api/uploads/", content_type="", headers={"Tus-Resumable": "1.0.0", "Upload-Length": length}
    )
    assert answer.status_code == 400
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("name", "case"), [("a.svs", ""), ("", "S1"), ("a.svs", "S\x00"), ("a.svs", "S" * 65), ("a\n.svs", "S1")]
)
def test_names_that_cannot_be_kept_are_refused(tus: Tus, name: str, case: str) -> None:
    assert tus.create(10, name=name, case=case).status_code == 400
    assert not Case.objects.exists()


def test_a_name_is_text_and_never_a_path(tus: Tus, home: Path) -> None:
    data = b"some bytes"
    tus.send(data, name="../../etc/passwd.svs")
    slide = Slide.objects.get()
    assert slide.file_name == "passwd.svs"
    assert home in slide.source_path.resolve().parents


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.OME.TIF", ".ome.tif"), ("a.b.svs", ".svs"), ("a", ""), ("a.s$s", ""), ("a.verylongsuffix", ""), (".svs", "")],
)
def test_only_a_plain_suffix_survives_into_the_stored_name(tus: Tus, name: str, suffix: str) -> None:
    tus.send(b"some bytes", name=name)
    slide = Slide.objects.get()
    assert slide.source_path.name == f"{slide.pk}{suffix}"


def test_a_file_over_the_largest_size_is_413(tus: Tus, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 1000
    assert tus.create(1001).status_code == 413


def test_the_quota_counts_what_is_stored_and_what_is_under_way(tus: Tus, settings: Any) -> None:
    settings.UPLOAD_QUOTA_BYTES = 1000
    tus.send(b"a" * 400)
    assert tus.create(500).status_code == 201
    refused = tus.create(200)
    assert refused.status_code == 413
    assert "quota" not in refused.json()["message"]
    assert "Delete slides" in refused.json()["message"]


def test_space_promised_to_one_upload_is_not_given_to_another(tus: Tus, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("slides.ingest.storage_left", lambda: (1000, 10_000))
    assert tus.create(700).status_code == 201
    refused = tus.create(400)
    assert refused.status_code == 507
    assert refused.json()["error"] == "storage_full"


def test_a_checksum_that_differs_refuses_the_file(tus: Tus, home: Path) -> None:
    answer = tus.send(b"what arrived", sha256=sha256(b"what was sent"))
    assert answer.status_code == 400
    assert "checksums differ" in answer.json()["message"]
    upload = Upload.objects.get()
    assert (upload.state, upload.reason) == (UploadState.REFUSED, answer.json()["message"])
    assert not Slide.objects.exists()
    assert list((home / "uploads").iterdir()) == []
    assert kinds()[-1] == "upload_refused"


def test_the_same_file_twice_is_named_and_not_stored_again(tus: Tus) -> None:
    tus.send(b"the same bytes", name="a.svs", case="S1", node="A1")
    for facts in ({}, {"sha256": sha256(b"the same bytes")}):
        answer = tus.send(b"the same bytes", name="b.svs", case="S2", **facts)
        assert answer.status_code == 400
        assert "A1 1 of case S1" in answer.json()["message"]
    assert Slide.objects.count() == 1
    assert Upload.objects.filter(state=UploadState.REFUSED).count() == 2


def test_a_duplicate_that_says_so_is_refused_before_its_bytes_travel(tus: Tus) -> None:
    tus.send(b"the same bytes")
    assert tus.create(14, sha256=sha256(b"the same bytes")).status_code == 400


def test_an_empty_file_is_refused_in_words(tus: Tus) -> None:
    answer = tus.create(0)
    assert answer.status_code == 400
    assert "empty (0 bytes)" in answer.json()["message"]
    assert Upload.objects.get().state == UploadState.REFUSED


def test_a_cancelled_upload_leaves_no_bytes(tus: Tus, home: Path, django_capture_on_commit_callbacks: Any) -> None:
    url = tus.create(1000)["Location"]
    tus.patch(url, b"a" * 100, 0)
    with django_capture_on_commit_callbacks(execute=True):
        assert tus.delete(url).status_code == 204
    assert list((home / "uploads").iterdir()) == []
    assert tus.patch(url, b"a" * 100, 100).status_code == 409
    assert tus.head(url).status_code == 404
    assert kinds().count("upload_cancelled") == 1
    tus.delete(url)
    assert kinds().count("upload_cancelled") == 1


def test_an_upload_cancelled_while_it_is_written_stops(operator: User, tus: Tus, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "SAFE_EVERY_BYTES", 1)
    upload = upload_of(tus.create(2000))

    class CancelledBetween:
        sent = 0

        def read(self, size: int, /) -> bytes:
            self.sent += 1
            if self.sent == 2:
                uploads.cancel_upload(upload_id=upload.pk, actor=operator)
            return b"a" * 500

    with pytest.raises(UploadConflict):
        uploads.receive(upload_id=upload.pk, offset=0, size=2000, stream=CancelledBetween())
    upload.refresh_from_db()
    assert (upload.state, upload.offset) == (UploadState.CANCELLED, 500)


def test_an_end_that_was_cut_off_is_made_up_for(tus: Tus, home: Path, monkeypatch: Any) -> None:
    """All bytes counted, then the process died: before the slide was made, or after the file had moved."""
    for number, died_at in enumerate(["slides.uploads._move", "slides.ingest.enqueue"]):
        data = b"all the bytes %d" % number
        url = tus.create(data)["Location"]

        def die(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(died_at, die)
            with pytest.raises(KeyboardInterrupt):
                tus.patch(url, data, 0)
        assert Slide.objects.count() == number
        assert tus.head(url)["Upload-Offset"] == str(len(data))
        assert Slide.objects.count() == number + 1
        assert Slide.objects.order_by("-created_at")[0].source_path.read_bytes() == data


def test_the_scheduler_finishes_what_a_sender_left_complete(tus: Tus, monkeypatch: Any) -> None:
    data = b"all the bytes"
    url = tus.create(data)["Location"]
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_finish", lambda *_, **__: None)
        tus.patch(url, data, 0)
    uploads.finish_left_alone()
    assert not Slide.objects.exists(), "the sender may still come back"
    Upload.objects.update(touched_at="2020-01-01T00:00:00Z")
    uploads.finish_left_alone()
    assert Slide.objects.get().sha256 == sha256(data)


def test_an_upload_that_nobody_goes_on_with_is_given_up(tus: Tus, django_capture_on_commit_callbacks: Any) -> None:
    fresh, forgotten = upload_of(tus.create(1000)), upload_of(tus.create(1000))
    Upload.objects.filter(pk=forgotten.pk).update(touched_at="2020-01-01T00:00:00Z")
    with django_capture_on_commit_callbacks(execute=True):
        uploads.drop_forgotten()
    assert Upload.objects.get(pk=fresh.pk).state == UploadState.RECEIVING
    assert Upload.objects.get(pk=forgotten.pk).state == UploadState.CANCELLED
    assert (fresh.path.exists(), forgotten.path.exists()) == (True, False)
    [event] = Event.objects.filter(kind="upload_cancelled")
    assert (event.actor_id, event.subject_id) == (None, str(forgotten.pk))


def test_ones_own_unfinished_uploads_are_listed(tus: Tus, person: Callable[..., User]) -> None:
    tus.create(1000, name="mine.svs", case="S7")
    tus.create(0)
    Tus(logged_in(person("other", Role.OPERATOR))).create(2000, name="theirs.svs")
    [mine] = tus.client.get("/api/uploads/").json()["results"]
    assert (mine["filename"], mine["case"], mine["size"], mine["offset"]) == ("mine.svs", "S7", 1000, 0)
    assert tus.head(mine["url"])["Upload-Offset"] == "0"


def test_an_unfinished_upload_is_found_by_its_content(tus: Tus, person: Callable[..., User]) -> None:
    for content in (b"one", b"other"):
        tus.create(1000, sha256=sha256(content))
    Tus(logged_in(person("other", Role.OPERATOR))).create(1000, sha256=sha256(b"one"))
    [found] = tus.client.get("/api/uploads/", {"sha256": sha256(b"one")}).json()["results"]
    assert found["sha256"] == sha256(b"one")
    assert tus.client.get("/api/uploads/", {"sha256": "0" * 64}).json()["results"] == []


def test_nobody_reaches_another_persons_upload(tus: Tus, person: Callable[..., User]) -> None:
    url = tus.create(1000)["Location"]
    other = Tus(logged_in(person("other", Role.OPERATOR)))
    assert other.head(url).status_code == 404
    assert other.patch(url, b"a", 0).status_code == 404
    assert other.delete(url).status_code == 404
    assert other.head(f"/api/uploads/{uuid.uuid4()}/").status_code == 404


def test_only_operators_may_upload(reader: User) -> None:
    assert Tus(logged_in(reader)).create(10).status_code == 403
    assert Tus(Client()).create(10).status_code == 403


def test_a_session_alone_is_not_enough_without_the_csrf_header(operator: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    tus = Tus(client)
    assert tus.create(10).status_code == 403
    assert tus.patch(f"/api/uploads/{uuid.uuid4()}/", b"a", 0).status_code == 403


def test_an_upload_is_never_answered_from_a_cache(tus: Tus) -> None:
    answer = tus.head(tus.create(10)["Location"])
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.django_db(transaction=True)
def test_the_same_file_at_the_same_moment_becomes_one_slide(person: Callable[..., User]) -> None:
    owner = person("operator", Role.OPERATOR)
    data = b"the same bytes at the same moment"
    together = threading.Barrier(4)
    answers: list[int] = []

    def send(number: int) -> None:
        from django.db import connection

        try:
            client = Tus(logged_in(owner))
            url = client.create(data, case=f"S{number}")["Location"]
            together.wait(timeout=20)
            answers.append(client.patch(url, data, 0).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answers) == [204, 400, 400, 400]
    assert Slide.objects.count() == 1
