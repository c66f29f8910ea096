"""An operator uploads files, a folder and an archive on the page; what broke off goes on after a reload."""

import random
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link
from slides.models import Slide, Upload
from tests.browser.test_log_in import assert_accessible
from tests.slides.conftest import prepare_now, sha256, write_slide
from tests.slides.made_folders import hamamatsu_files, mirax_files, write_files, zipped

pytestmark = pytest.mark.browser

CHUNK_BYTES = 8 * 2**20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
    """One for the server and for the worker, which is this process."""
    monkeypatch.setenv("METADET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METADET_DISK_FLOOR_GB", "0")
    monkeypatch.setenv("METADET_UPLOAD_QUOTA_GB", "1")
    settings.METADET_HOME = tmp_path / "home"
    settings.HEARTBEAT_SECONDS = 3600
    return settings.METADET_HOME


@pytest.fixture
def operator_page(site: str, page: Page) -> Page:
    operator = User.objects.create(username="olga", printed_name="Olga Operator", roles=[Role.OPERATOR])
    page.goto(f"{site}/accounts/one-time/{make_one_time_link(user=operator)}/")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{site}/slides/")
    return page


def choose(page: Page, *paths: Path, case: str = "S24-1") -> None:
    page.get_by_label("Case (accession number)").first.fill(case)
    kind = "input[type=file][webkitdirectory]" if paths[0].is_dir() else "input[type=file]:not([webkitdirectory])"
    page.locator(kind).set_input_files([str(path) for path in paths] if len(paths) > 1 else str(paths[0]))


def drop(page: Page, *paths: Path) -> None:
    """Files and folders out of the file manager, as the browser gets them from the system."""
    page.get_by_label("Case (accession number)").first.fill("S24-1")
    box = page.locator(".drop").bounding_box()
    assert box is not None
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send(
            "Input.dispatchDragEvent",
            {
                "type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2,
                "data": {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1},
            },
        )  # fmt: skip


def row(page: Page, name: str) -> Any:
    return page.get_by_label("Files", exact=True).get_by_role("listitem").filter(has_text=name)


def test_a_folder_of_many_kinds_arrives_as_slides(operator_page: Page, tmp_path: Path) -> None:
    page = operator_page
    folder = write_files(tmp_path / "scanner", mirax_files("Müller 1") | hamamatsu_files("hama"))
    write_files(folder, {"lost.mrxs": b"alone", "notes.txt": b"hello", ".DS_Store": b"x", "folder.jpg": b"x"})
    write_slide(folder / "single.svs")
    archived = {f"in/{n}.svs": write_slide(tmp_path / f"{n}.svs", seed=n).read_bytes() for n in (7, 8)}
    (folder / "two.zip").write_bytes(zipped(archived))
    choose(page, folder)
    for name in ("Müller 1.mrxs", "hama.vms", "single.svs", "two.zip"):
        expect(row(page, name)).to_contain_text("received", timeout=60_000)
    expect(row(page, "Müller 1.mrxs")).to_contain_text("one slide of 4 files")
    expect(row(page, "lost.mrxs")).to_contain_text("needs its folder of the same name")
    expect(row(page, "lost.mrxs").get_by_role("button")).to_have_text(["Remove"])
    expect(page.locator("[data-upload]")).to_contain_text("Left out, because they are no slides: ")
    expect(page.locator("[data-upload]")).to_contain_text("notes.txt")
    expect(page.locator("[data-upload]")).to_contain_text("4 of 5 received, 1 failed")
    assert_accessible(page)

    packed = Slide.objects.get(file_name="Müller 1.mrxs.zip")
    assert sha256(packed.source_path.read_bytes()) == packed.sha256, "the page said what it would send before it did"
    while waiting := Slide.objects.filter(state="checking").first():
        prepare_now(waiting.pk)
    page.get_by_role("link", name="Show the slides in the list").click()
    assert {(slide.file_name, slide.state, slide.reason) for slide in Slide.objects.all()} == {
        (name, "ready", "") for name in ("Müller 1.mrxs", "hama.vms", "single.svs", "in/7.svs", "in/8.svs")
    }
    expect(page.locator("main table").last).to_contain_text("Müller 1.mrxs")

    # The same folder again is recognised, whatever it is called now.
    choose(page, folder.rename(tmp_path / "copy"), case="S24-2")
    expect(row(page, "Müller 1.mrxs")).to_contain_text("This file is here already", timeout=60_000)
    expect(row(page, "two.zip")).to_contain_text("This file is here already", timeout=60_000)


def test_a_slide_and_its_folder_are_dropped_together(operator_page: Page, tmp_path: Path) -> None:
    page = operator_page
    folder = write_files(tmp_path / "scanner", mirax_files("one") | {"one/.DS_Store": b"x", "one/deep/notes.txt": b"y"})
    single = write_slide(folder / "single.svs")
    drop(page, folder / "one.mrxs", folder / "one", single)
    expect(row(page, "one.mrxs")).to_contain_text("one slide of 4 files")
    for name in ("one.mrxs", "single.svs"):
        expect(row(page, name)).to_contain_text("received", timeout=60_000)
    expect(page.locator("[data-upload]")).to_contain_text("Left out, because they are no slides: one/deep/notes.txt.")
    slide = prepare_now(Slide.objects.get(file_name="one.mrxs.zip").pk)
    assert (slide.state, slide.file_name) == ("ready", "one.mrxs")


def test_an_upload_goes_on_after_a_reload(operator_page: Page, tmp_path: Path) -> None:
    page = operator_page
    data = random.Random(5).randbytes(3 * CHUNK_BYTES)
    files = {"big.mrxs": b"index", "big/Data0000.dat": data, "big/Slidedat.ini": b"x"}
    folder = write_files(tmp_path / "scanner", files)
    sent: list[str] = []

    def let_one_through(route: Route, request: Request) -> None:
        sent.append(request.headers["upload-offset"])
        if len(sent) > 1:
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/api/uploads/*/", of_patches(let_one_through))
    with page.expect_request(lambda request: request.headers.get("upload-offset") == str(CHUNK_BYTES)):
        choose(page, folder)
    row(page, "big.mrxs").get_by_role("button", name="Pause").click()
    expect(row(page, "big.mrxs")).to_contain_text("paused")
    assert Upload.objects.get().offset == CHUNK_BYTES

    page.unroute_all()
    page.reload()
    expect(page.locator("[data-upload]")).to_contain_text("Unfinished uploads")
    expect(page.locator("[data-upload]")).to_contain_text("8.0 MB of 24.0 MB are here")
    assert_accessible(page)
    with page.expect_request(lambda request: request.method == "PATCH") as first:
        choose(page, folder)
    assert first.value.headers["upload-offset"] == str(CHUNK_BYTES)
    expect(row(page, "big.mrxs")).to_contain_text("received", timeout=60_000)
    expect(row(page, "big.mrxs")).to_contain_text("went on at 33 %")
    expect(page.locator("[data-upload]")).not_to_contain_text("Unfinished uploads")
    assert Upload.objects.count() == 1
    slide = Slide.objects.get()
    assert sha256(slide.source_path.read_bytes()) == slide.sha256


def test_pause_resume_cancel_and_give_up(operator_page: Page, tmp_path: Path) -> None:
    page = operator_page
    for name in ("one.svs", "two.svs"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(2 * CHUNK_BYTES))
    page.route("**/api/uploads/*/", of_patches(lambda route, _: route.abort("connectionreset")))
    choose(page, tmp_path / "one.svs", tmp_path / "two.svs")
    for name in ("one.svs", "two.svs"):
        expect(row(page, name)).to_contain_text("sending")
        row(page, name).get_by_role("button", name="Pause").click()
        expect(row(page, name)).to_contain_text("paused")
    page.unroute_all()
    row(page, "two.svs").get_by_role("button", name="Cancel").click()
    expect(row(page, "two.svs")).to_contain_text("cancelled")
    row(page, "one.svs").get_by_role("button", name="Resume").click()
    expect(row(page, "one.svs")).to_contain_text("received", timeout=60_000)
    assert set(Upload.objects.values_list("file_name", "state")) == {("one.svs", "complete"), ("two.svs", "cancelled")}

    Upload.objects.create(
        owner=User.objects.get(), case=Slide.objects.get().case, file_name="old.svs", length=1000, offset=10
    )
    page.reload()
    page.get_by_role("button", name="Give up old.svs").click()
    expect(page.locator("[data-upload]")).not_to_contain_text("Unfinished uploads")
    assert Upload.objects.get(file_name="old.svs").state == "cancelled"


def test_what_the_server_has_no_room_for_is_said_in_words(operator_page: Page, tmp_path: Path) -> None:
    page = operator_page
    for name, size in (("large.svs", 70 << 30), ("many.svs", 2 << 30)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1000)
        case = page.get_by_label("Case (accession number)").first
        case.fill("S1")
        page.route("**/api/uploads/", announced_as(size))
        choose(page, tmp_path / name)
        expect(row(page, name)).to_contain_text("the largest that is taken" if name == "large.svs" else "Delete slides")
        expect(row(page, name).get_by_role("button", name="Try again")).to_be_visible()
        page.unroute_all()
    assert_accessible(page)


def of_patches(handle: Any) -> Any:
    def on_patch(route: Route, request: Request) -> None:
        if request.method == "PATCH":
            handle(route, request)
        else:
            route.continue_()

    return on_patch


def announced_as(size: int) -> Any:
    """The server hears of a large file without one having to be made."""

    def announce(route: Route, request: Request) -> None:
        if request.method == "POST":
            route.continue_(headers=request.headers | {"upload-length": str(size)})
        else:
            route.continue_()

    return announce
