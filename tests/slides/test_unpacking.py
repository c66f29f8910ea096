"""Slides of several files: by zip archive and in place, each one slide through its whole life."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openslide
import pytest

from accounts.models import User
from audit_trail.models import Event
from slides import importing, ingest, unpacking
from slides.errors import WrongState
from slides.models import Slide, Upload
from slides.wsi import sandbox
from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.slide_files import files_of, sha256_of, slides_among, stamp_of
from tests.slides.conftest import Tus, prepare_now, sha256, write_slide
from tests.slides.made_folders import hamamatsu_files, mirax_files, write_files, zipped

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def commits(django_capture_on_commit_callbacks: Any) -> Any:
    """What is to happen after a commit happens when the test asks for it."""
    return django_capture_on_commit_callbacks


def sent(tus: Tus, data: bytes, **facts: str) -> Slide:
    answer = tus.send(data, **facts)
    assert answer.status_code == 204, answer.json()
    return Slide.objects.order_by("-created_at")[0]


def prepared(slide: Slide, commits: Any) -> Slide:
    with commits(execute=True):
        return prepare_now(slide.pk)


def stored(slide: Slide) -> set[str]:
    """Names of all stored files of the slide, its id written as ID."""
    folder = slide.folder / "source"
    return {str(path.relative_to(folder)).replace(str(slide.pk), "ID") for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def reference_slides(reference_data: Path) -> Path:
    return reference_data / "slides"


def dicom_series(reference_slides: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (reference_slides / "openslide_dicom_series").iterdir()}


# --- by archive ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_mirax_slide_in_an_archive_becomes_one_ready_slide(tus: Tus, commits: Any, method: int) -> None:
    data = zipped(mirax_files("day 1/slide"), method)
    slide = sent(tus, data, name="slide.zip", node="A1", sha256=sha256(data))
    assert (slide.state, slide.sha256, slide.is_packed) == ("checking", sha256(data), True)
    slide = prepared(slide, commits)
    assert (slide.state, slide.reason) == ("ready", "")
    assert (slide.format, slide.width, slide.mpp_x, slide.node.label) == ("mirax", 768, 0.5, "A1")
    assert stored(slide) == {"ID.mrxs", "ID/Slidedat.ini", "ID/Index.dat", "ID/Data0000.dat"}
    assert slide.file_name == "day 1/slide.mrxs"
    assert slide.size_bytes == sum(map(len, mirax_files().values()))
    assert (slide.archive_sha256, slide.sha256) == (sha256(data), sha256_of(slide.source_path))
    assert {path.name for path in slide.folder.iterdir()} == {"source", slide.store}
    [ready] = Event.objects.filter(kind="slide_ready")
    assert sha256(data) in ready.body
    assert not any("day 1" in event.body for event in Event.objects.all()), "file names can name a patient"


def test_a_hamamatsu_slide_in_an_archive_becomes_one_ready_slide(tus: Tus, commits: Any) -> None:
    other = {"slide 2(0,0).jpg": b"of another slide", "notes.txt": b"not a slide"}
    slide = prepared(sent(tus, zipped(hamamatsu_files() | other), name="slide.zip"), commits)
    assert (slide.state, slide.format, slide.reason) == ("ready", "hamamatsu", "")
    assert stored(slide) == {"ID.vms", "slide(0,0).jpg", "slide_map2.jpg"}


def test_a_dicom_series_in_an_archive_becomes_one_ready_slide(tus: Tus, commits: Any, reference_slides: Path) -> None:
    series = dicom_series(reference_slides)
    files = {f"DICOM/{number}": data for number, data in enumerate(series.values())} | {"DICOMDIR": b"list"}
    slide = prepared(sent(tus, zipped(files), name="export.zip"), commits)
    assert (slide.state, slide.format, slide.reason) == ("ready", "dicom", "")
    assert stored(slide) == {"ID.dcm", "0000.dcm"}
    assert slide.properties["associated"] == ["thumbnail"], "which lies in the second file"


def test_two_series_in_one_folder_are_two_slides(tus: Tus, commits: Any, reference_slides: Path) -> None:
    files = dicom_series(reference_slides)
    files["z.dcm"] = (reference_slides / "panimg_wsi_full_with_bot.dcm").read_bytes()
    first = prepared(sent(tus, zipped(files), name="export.zip"), commits)
    second = prepared(Slide.objects.exclude(pk=first.pk).get(), commits)
    assert [stored(first), stored(second)] == [{"ID.dcm", "0000.dcm"}, {"ID.dcm"}]


def test_an_archive_of_ordinary_slides_becomes_as_many(tus: Tus, commits: Any, tmp_path: Path, operator: User) -> None:
    files = {f"S{n}.svs": write_slide(tmp_path / f"{n}.svs", seed=n).read_bytes() for n in (1, 2, 3)}
    slide = sent(tus, zipped(files | {"readme.txt": b"hello"}), name="three.zip", case="S5", node="B2")
    first = prepared(slide, commits)
    others = Slide.objects.exclude(pk=first.pk).order_by("position")
    assert [other.state for other in others] == ["checking", "checking"]
    everyone = [first, *(prepared(other, commits) for other in others)]
    assert [(each.state, each.file_name, each.position) for each in everyone] == [
        ("ready", "S1.svs", 0),
        ("ready", "S2.svs", 1),
        ("ready", "S3.svs", 2),
    ]
    assert [each.sha256 for each in everyone] == [sha256(data) for data in files.values()]
    assert {(each.case.accession, each.node.label, each.created_by) for each in everyone} == {("S5", "B2", operator)}
    assert [event.slide_id for event in Event.objects.filter(kind="slide_received").order_by("seq")] == [
        each.pk for each in everyone
    ]


def test_the_name_does_not_matter_but_the_content(tus: Tus, commits: Any, tmp_path: Path) -> None:
    slide = sent(tus, zipped({"a.svs": write_slide(tmp_path / "a.svs").read_bytes()}), name="slide.svs")
    assert prepared(slide, commits).state == "ready"
    refused = tus.send(b"no archive at all", name="slide.zip")
    assert refused.status_code == 400
    assert "is no zip archive" in refused.json()["message"]


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"../a.svs": b"x"}, "bad_archive", "leads out of it"),
        ({"a.svs": zipped({"b.svs": b"x"})}, "bad_archive", "another archive"),
        ({"report.pdf": b"%PDF"}, "not_a_slide", "holds no slide"),
        ({"slide.mrxs": b"alone"}, "incomplete", "its folder of the same name"),
        ({"slide.vms": b"ImageFile=gone.jpg"}, "incomplete", "the picture files"),
    ],
)
def test_a_bad_archive_is_quarantined_and_nothing_of_it_is_left(
    tus: Tus, commits: Any, files: dict[str, bytes], code: str, words: str
) -> None:
    data = zipped(files)
    slide = prepared(sent(tus, data, name="slide.zip"), commits)
    assert (slide.state, slide.reason_code) == ("quarantined", code)
    assert words in slide.reason
    assert stored(slide) == {"ID.zip"}
    assert [path.name for path in slide.folder.iterdir()] == ["source"]
    again = tus.send(data, name="slide.zip")
    assert again.status_code == 400
    assert "quarantined" in again.json()["message"]


def test_an_archive_of_too_many_slides_is_told_to_come_in_parts(tus: Tus, commits: Any) -> None:
    files = {f"{number}.svs": str(number).encode() for number in range(unpacking.MOST_SLIDES + 1)}
    slide = prepared(sent(tus, zipped(files), name="many.zip"), commits)
    assert (slide.state, Slide.objects.count()) == ("quarantined", 1)
    assert "101 slides" in slide.reason


def test_what_would_burst_the_quota_is_quarantined(tus: Tus, commits: Any, settings: Any) -> None:
    data = zipped({"a.svs": bytes(100_000)}, zipfile.ZIP_DEFLATED)
    settings.UPLOAD_QUOTA_BYTES = 50_000
    slide = prepared(sent(tus, data, name="a.zip"), commits)
    assert (slide.state, slide.reason_code) == ("quarantined", "too_large")


def test_a_full_disk_fails_the_slide_and_a_retry_goes_on(tus: Tus, commits: Any, monkeypatch: Any) -> None:
    slide = sent(tus, zipped(mirax_files()), name="a.zip")
    with monkeypatch.context() as patched:
        patched.setattr("slides.ingest.storage_left", lambda: (1000, 10**9))
        slide = prepared(slide, commits)
    assert slide.state == "failed"
    assert "disk is full" in slide.reason
    ingest.retry(slide_id=slide.pk, actor=slide.created_by)
    assert prepared(slide, commits).state == "ready"


def test_room_is_kept_for_an_archive_and_for_what_comes_out_of_it(tus: Tus, monkeypatch: Any) -> None:
    monkeypatch.setattr("slides.ingest.storage_left", lambda: (1000, 10**9))
    assert tus.create(600, name="a.zip").status_code == 507
    assert tus.create(600, name="a.svs").status_code == 201


@pytest.mark.parametrize("name", ["a.mrxs", "a.vms", "A.VMU"])
def test_an_index_file_alone_is_refused_before_it_travels(tus: Tus, name: str) -> None:
    answer = tus.create(100, name=name)
    assert answer.status_code == 400
    assert "Drop them together" in answer.json()["message"]


# --- a crash in between -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["ingest.receive_slide", "uploads.make_names_durable"])
def test_a_crash_while_slides_are_put_in_place_begins_anew(
    tus: Tus, commits: Any, tmp_path: Path, monkeypatch: Any, where: str
) -> None:
    files = mirax_files() | {"z.svs": write_slide(tmp_path / "z.svs").read_bytes()}
    slide = sent(tus, zipped(files), name="a.zip")

    def die(*_: Any, **__: Any) -> None:
        raise OSError("the machine died here")

    with monkeypatch.context() as patched:
        patched.setattr(f"slides.unpacking.{where}", die)
        prepare_now(slide.pk)
    assert Slide.objects.get().is_packed
    assert "ID.mrxs" in stored(slide), "the crash fell into the middle"
    first = prepared(slide, commits)
    second = prepared(Slide.objects.exclude(pk=slide.pk).get(), commits)
    assert [first.state, second.state] == ["ready", "ready"]
    assert stored(first) == {"ID.mrxs", "ID/Slidedat.ini", "ID/Index.dat", "ID/Data0000.dat"}
    assert stored(second) == {"ID.svs"}


def test_an_archive_that_a_crash_left_is_removed_at_the_next_preparation(tus: Tus, commits: Any) -> None:
    slide = sent(tus, zipped(mirax_files()), name="a.zip")
    prepare_now(slide.pk)  # the process dies before what follows the commit
    assert "ID.zip" in stored(slide)
    ingest.retry(slide_id=slide.pk, actor=slide.created_by)
    assert prepared(slide, commits).state == "ready"
    assert "ID.zip" not in stored(slide)


def test_what_a_killed_worker_had_unpacked_is_removed_by_the_next(tus: Tus, commits: Any) -> None:
    slide = sent(tus, zipped(mirax_files()), name="a.zip")
    (slide.folder / "unpacked-half").mkdir()
    (slide.folder / "unpacked-half" / "0000").write_bytes(b"half a file")
    slide = prepared(slide, commits)
    assert {path.name for path in slide.folder.iterdir()} == {"source", slide.store}


# --- the life of such a slide -------------------------------------------------------------------------


@pytest.fixture
def mirax(tus: Tus, commits: Any) -> Slide:
    return prepared(sent(tus, zipped(mirax_files()), name="slide.zip"), commits)


def test_the_same_archive_again_is_recognised_before_it_travels(tus: Tus, mirax: Slide) -> None:
    data = zipped(mirax_files())
    answer = tus.create(data, name="copy.zip", sha256=sha256(data))
    assert answer.status_code == 400
    assert "This file is here already" in answer.json()["message"]
    assert tus.send(data, name="copy.zip").status_code == 400


def test_the_same_slide_in_another_archive_is_recognised_and_not_kept(tus: Tus, commits: Any, mirax: Slide) -> None:
    other = zipped(mirax_files("else/where"), zipfile.ZIP_DEFLATED)
    slide = prepared(sent(tus, other, name="other.zip"), commits)
    assert (slide.state, slide.reason_code) == ("quarantined", "duplicate")
    assert "case S1" in slide.reason
    assert not (slide.folder / "source").exists()


def test_a_slide_that_came_alone_is_recognised_in_an_archive(tus: Tus, commits: Any, tmp_path: Path) -> None:
    data = write_slide(tmp_path / "a.svs").read_bytes()
    tus.send(data, name="a.svs")
    other = write_slide(tmp_path / "b.svs", seed=2).read_bytes()
    first = prepared(sent(tus, zipped({"a.svs": data, "b.svs": other}), name="two.zip"), commits)
    assert first.reason_code == "duplicate"
    second = prepared(Slide.objects.get(file_name="b.svs"), commits)
    assert second.state == "ready"


def test_an_archive_may_be_sent_again_when_a_slide_of_it_was_deleted(
    tus: Tus, commits: Any, mirax: Slide, operator: User
) -> None:
    data = zipped(mirax_files())
    with commits(execute=True):
        ingest.delete_slide(slide_id=mirax.pk, reason="wrong case", actor=operator)
    assert not mirax.folder.exists()
    assert prepared(sent(tus, data, name="slide.zip", sha256=sha256(data)), commits).state == "ready"
    assert tus.create(data, name="slide.zip", sha256=sha256(data)).status_code == 400


def test_it_is_linked_to_a_second_case_and_its_files_stay_while_one_needs_them(
    commits: Any, mirax: Slide, operator: User
) -> None:
    with commits(execute=True):
        linked, _ = ingest.link_slide(slide_id=mirax.pk, accession="S2", node_label="", actor=operator)
    linked = prepared(linked, commits)
    assert (linked.state, linked.source) == ("ready", mirax.source)
    with commits(execute=True):
        ingest.delete_slide(slide_id=mirax.pk, reason="wrong case", actor=operator)
    assert stored(mirax) == {"ID.mrxs", "ID/Slidedat.ini", "ID/Index.dat", "ID/Data0000.dat"}
    ingest.retry(slide_id=linked.pk, actor=operator)
    assert prepared(linked, commits).state == "ready"
    with commits(execute=True):
        ingest.delete_slide(slide_id=linked.pk, reason="not needed", actor=operator)
    assert not mirax.folder.exists()
    assert not linked.folder.exists()


def test_an_archive_is_not_linked_before_it_is_unpacked(tus: Tus, operator: User) -> None:
    slide = sent(tus, zipped(mirax_files()), name="slide.zip")
    with pytest.raises(WrongState, match="when the slide is ready"):
        ingest.link_slide(slide_id=slide.pk, accession="S2", node_label="", actor=operator)


@pytest.mark.parametrize("change", ["companion", "more", "fewer"])
def test_a_change_of_any_of_its_files_is_seen(commits: Any, mirax: Slide, operator: User, change: str) -> None:
    folder = mirax.source_path.with_suffix("")
    if change == "companion":
        data = (folder / "Data0000.dat").read_bytes()
        (folder / "Data0000.dat").write_bytes(data[:-1] + b"?")
    elif change == "more":
        (folder / "Data0001.dat").write_bytes(b"")
    else:
        (folder / "Index.dat").unlink()
    job = ingest.retry(slide_id=mirax.pk, actor=operator)
    assert prepared(mirax, commits).store == mirax.store, "the tiles that are there stay in use"
    job.refresh_from_db()
    assert (job.state, "no longer the file that was received" in job.error) == ("failed", True)


def test_a_companion_that_was_only_touched_is_read_again_and_believed(
    commits: Any, mirax: Slide, operator: User
) -> None:
    (mirax.source_path.with_suffix("") / "Index.dat").touch()
    ingest.retry(slide_id=mirax.pk, actor=operator)
    assert prepared(mirax, commits).state == "ready"


def test_its_bytes_count_for_the_quota(tus: Tus, mirax: Slide, settings: Any) -> None:
    settings.UPLOAD_QUOTA_BYTES = mirax.size_bytes + 100
    assert tus.create(101).status_code == 413
    assert tus.create(100).status_code == 201


# --- in place -----------------------------------------------------------------------------------------


def test_each_slide_of_a_mounted_folder_is_one_slide(
    commits: Any, tmp_path: Path, operator: User, reference_slides: Path
) -> None:
    scanner = tmp_path / "scanner"
    write_files(scanner, mirax_files("mirax") | hamamatsu_files("hama"))
    write_files(scanner / "dicom", dicom_series(reference_slides) | {"DICOMDIR": b"list"})
    write_slide(scanner / "single.svs")
    before = {path: path.stat().st_mtime_ns for path in scanner.rglob("*")}
    found = importing.slide_files([scanner])
    assert [path.relative_to(scanner).as_posix() for path in found] == [
        "dicom/boxes_0.dcm",
        "hama.vms",
        "mirax.mrxs",
        "single.svs",
    ]
    for path in found:
        result = importing.import_file(path=path, accession="S1", actor=operator, hash_now=path.suffix != ".vms")
        assert result.slide is not None, result.reason
        slide = prepared(result.slide, commits)
        assert (slide.state, slide.reason) == ("ready", "")
        assert slide.source == str(path)
    assert {path: path.stat().st_mtime_ns for path in scanner.rglob("*")} == before, "nothing is written there"
    assert Slide.objects.get(format="dicom").file_name == "dicom/boxes_0.dcm"


def test_a_slide_in_place_and_in_an_archive_is_the_same_slide(
    tus: Tus, commits: Any, tmp_path: Path, operator: User
) -> None:
    write_files(tmp_path / "scanner", mirax_files("a"))
    result = importing.import_file(path=tmp_path / "scanner" / "a.mrxs", accession="S1", actor=operator, hash_now=True)
    assert result.slide is not None
    slide = prepared(sent(tus, zipped(mirax_files("b")), name="b.zip"), commits)
    assert slide.reason_code == "duplicate"
    again = write_files(tmp_path / "copy", mirax_files("c"))
    second = importing.import_file(path=again / "c.mrxs", accession="S2", actor=operator, hash_now=True)
    assert second.duplicate_of == result.slide


def test_an_archive_is_not_imported_in_place(tmp_path: Path, operator: User) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(mirax_files()))
    result = importing.import_file(path=tmp_path / "a.zip", accession="S1", actor=operator, hash_now=True)
    assert result.slide is None
    assert "Unpack it there" in result.reason


@pytest.mark.parametrize("linked", ["a", "a/Data0000.dat"])
def test_a_companion_that_leads_out_of_the_import_folder_is_refused(
    tus: Tus, tmp_path: Path, settings: Any, linked: str
) -> None:
    settings.IMPORT_FOLDERS = [tmp_path / "allowed"]
    folder = write_files(tmp_path / "allowed", mirax_files("a"))
    imported = {"path": "a.mrxs", "case": "S1"}
    (folder / linked).rename(tmp_path / "outside")
    (folder / linked).symlink_to(tmp_path / "outside")
    answer = tus.client.post("/api/imports/", imported, content_type="application/json")
    assert answer.status_code == 400
    assert "Only files below" in answer.json()["message"]
    (folder / linked).unlink()
    (tmp_path / "outside").rename(folder / linked)
    assert tus.client.post("/api/imports/", imported, content_type="application/json").status_code == 202


def test_deleting_a_slide_in_place_leaves_all_of_its_files(
    commits: Any, tmp_path: Path, operator: User, received: Callable[..., Slide]
) -> None:
    folder = write_files(tmp_path / "scanner", mirax_files("a"))
    slide = prepared(received(folder / "a.mrxs"), commits)
    with commits(execute=True):
        ingest.delete_slide(slide_id=slide.pk, reason="wrong case", actor=operator)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(
        mirax_files("a")
    )


# --- which files ----------------------------------------------------------------------------------------


def test_a_list_of_files_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    folder = write_files(
        tmp_path / "slide", {"a.vms": b"ImageFile=../secret.jpg\nMapFile=b.jpg\nMacroImage=.\n", "b.jpg": b"y"}
    )
    assert files_of(folder / "a.vms") == [folder / "a.vms", folder / "b.jpg"]


def test_the_decoder_sees_the_slide_and_not_its_neighbours(tmp_path: Path) -> None:
    """A slide whose index names the file of another one, which is right beside it."""
    files = mirax_files("a")
    files["other.dat"] = files.pop("a/Data0000.dat")
    files["a/Slidedat.ini"] = files["a/Slidedat.ini"].replace(b"= Data0000.dat", b"= ../other.dat")
    folder = write_files(tmp_path / "slides", files)
    with openslide.OpenSlide(folder / "a.mrxs") as slide:
        assert slide.read_region((300, 200), 0, (8, 8)).getpixel((0, 0))[3] == 255, "the decoder alone would read it"
    with pytest.raises(SlideRefused) as refused:
        sandbox.describe(folder / "a.mrxs")
    assert refused.value.code == RefusalCode.INCOMPLETE


def test_the_content_of_a_series_does_not_depend_on_names(tmp_path: Path, reference_slides: Path) -> None:
    series = list(dicom_series(reference_slides).values())
    one = write_files(tmp_path / "one", {"a.dcm": series[0], "b.dcm": series[1]})
    two = write_files(tmp_path / "two", {"1": series[1], "2": series[0]})
    assert sha256_of(one / "a.dcm") == sha256_of(one / "b.dcm") == sha256_of(two / "1")
    assert sha256_of(one / "a.dcm") != hashlib.sha256(series[0]).hexdigest()
    assert stamp_of(one / "a.dcm").size_bytes == len(series[0]) + len(series[1])


def test_a_folder_of_many_slides_is_sorted(tmp_path: Path) -> None:
    files = mirax_files("a") | mirax_files("B") | {"A.SVS": b"x", "notes.txt": b"y", "deep/c.tif": b"z"}
    folder = write_files(tmp_path / "many", files)
    found = slides_among({path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()})
    assert {str(entry): len(companions) for entry, companions in found} == {
        "A.SVS": 0, "B.mrxs": 3, "a.mrxs": 3, "deep/c.tif": 0,
    }  # fmt: skip


def test_the_upload_knows_its_first_slide(tus: Tus, mirax: Slide) -> None:
    assert Upload.objects.get().slide == mirax
