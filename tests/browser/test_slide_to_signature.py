"""The main path as people walk it, in Chromium, with the real server, workers, decoding child and shipped detector."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.hashers import Argon2PasswordHasher
from playwright.sync_api import Page, expect

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link
from analysis.models import Run
from analysis.models_registry import register_shipped
from audit_trail.verification import Verdict, verify_trail
from review.models import Read, Signature
from slides.models import Slide
from tests.conftest import REPOSITORY
from tests.local_stack.process_watch import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PASSWORD = "a long pass phrase"
MICRO = (700, 1900, 1300, 1200)  # x0, y0, width, height of a field with the micrometastasis of the demo slide


@pytest.fixture
def state_folder(tmp_path: Path, settings) -> Path:
    """Shared by this process, the web server and the workers."""
    settings.METADET_HOME = tmp_path / "home"
    settings.METADET_HOME.mkdir(exist_ok=True)
    return Path(settings.METADET_HOME)


@pytest.fixture
def small_slide(tmp_path: Path) -> Path:
    """A region of the shipped composed slide, as a tiled JPEG TIFF with its scale: quick to read, with one known lesion."""
    x0, y0, width, height = MICRO
    with openslide.OpenSlide(REPOSITORY / "demo" / "composed_node.tif") as whole:
        region = np.asarray(whole.read_region((x0, y0), 0, (width, height)).convert("RGB"))
    path = tmp_path / "micro.tif"
    tifffile.imwrite(
        path,
        region,
        photometric="rgb",
        compression="jpeg",
        tile=(256, 256),
        resolution=(1e4 / 0.97, 1e4 / 0.97),
        resolutionunit="CENTIMETER",
    )
    return path


def cut_off(page: Page) -> list[str]:
    """Rows of the list of lesions, and the bar of keys, that are wider than their place."""
    rows: list[str] = page.eval_on_selector_all(
        ".lesion, .lesion-head, .keys-now",
        "rows => rows.filter(row => row.scrollWidth > row.clientWidth).map(row => row.textContent)",
    )
    return rows


def person(name: str, role: Role) -> User:
    hasher = Argon2PasswordHasher()  # what the web server checks; tests hash with a faster one
    return User.objects.create(
        username=name,
        password=hasher.encode(PASSWORD, hasher.salt()),
        printed_name=f"Dr {name.title()}",
        roles=[role],
    )


def log_in(page: Page, site: str, user: User) -> None:
    page.context.clear_cookies()
    page.goto(f"{site}/accounts/one-time/{make_one_time_link(user=user)}/")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"


def test_a_slide_goes_in_and_a_signature_comes_out(
    state_folder: Path,
    site: str,
    start: Callable[..., object],
    page: Page,
    small_slide: Path,
) -> None:
    register_shipped()
    operator, reader, auditor = (
        person(name, role) for name, role in (("omar", Role.OPERATOR), ("ada", Role.READER), ("aude", Role.AUDITOR))
    )
    start("scheduler")
    start("worker", "ingest")
    start("worker", "detect")

    # An operator sends a file, and sees it become ready.
    log_in(page, site, operator)
    expect(page).to_have_url(f"{site}/slides/")
    page.get_by_label("Case (accession number)").first.fill("S26-1")
    page.locator("input[type=file]").first.set_input_files(small_slide)
    expect(page.get_by_text("1 of 1 received")).to_be_visible(timeout=60_000)
    wait_until(lambda: Slide.objects.filter(state="ready").exists(), what="the slide is ready", patience_s=120)
    slide = Slide.objects.get()
    page.reload()
    expect(page.locator("main")).to_contain_text("ready")
    assert_accessible(page)
    page.goto(f"{site}/cases/{slide.case_id}/")
    page.get_by_label("Person").select_option(label=str(reader))
    page.get_by_role("button", name="Assign").click()
    expect(page.get_by_role("region", name="Readers: table")).to_contain_text(str(reader))
    wait_until(lambda: Run.objects.exists(), what="the detection has ended", patience_s=240)

    # The reader begins blind: nothing of the AI is asked for, and nothing is there.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    log_in(page, site, reader)
    page.get_by_role("link", name="S26-1").click()
    assert_accessible(page)
    page.get_by_role("button", name="Start reading").click()
    expect(page.get_by_role("group", name="Call")).to_be_visible()
    expect(page.get_by_role("region", name="AI lesions")).to_have_count(0)
    assert_accessible(page)
    page.get_by_role("group", name="Call").get_by_role("button", name="Negative").click()
    read = Read.objects.get()
    wait_until(lambda: read.calls.exists(), what="the unaided call is kept")
    assert [url for url in asked if "/ai" in url] == []
    page.get_by_role("button", name="Lock and show the AI").click()
    page.route("**/api/reads/*/", lambda route: route.abort())  # the connection breaks after the lock
    page.get_by_role("dialog").get_by_role("button", name="Lock and show the AI").click()
    expect(page.get_by_role("region", name="AI result")).to_contain_text("The AI result could not be loaded")
    page.unroute("**/api/reads/*/")
    page.get_by_role("button", name="Ask again").click()

    # The AI is revealed; the first lesion is accepted, that undone, and each rejected, all by keys.
    lesions = page.get_by_role("list", name="Lesions, strongest first")
    expect(lesions).to_be_visible(timeout=20_000)
    assert_accessible(page)
    page.keyboard.press("n")
    page.keyboard.press("a")
    wait_until(lambda: read.decisions.filter(verdict="accepted").count() == 1, what="the decision is kept")
    expect(lesions).to_contain_text("accepted")
    assert cut_off(page) == []
    page.keyboard.press("u")
    wait_until(lambda: read.decisions.filter(verdict="undecided").count() == 1, what="the undo is kept")
    for left in range(Run.objects.get().lesions.count()):
        page.keyboard.press("x")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("1")
        wait_until(
            lambda: read.decisions.filter(verdict="rejected").count() == left + 1,  # noqa: B023
            what="the rejection is kept",
        )
    page.keyboard.press("h")
    page.get_by_role("group", name="Call").get_by_role("button", name="Negative").click()
    wait_until(lambda: Read.objects.get().phase == "final", what="the final call is kept")

    # The signature: a wrong password signs nothing, the right one does.
    page.get_by_role("button", name="Sign").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Your password").fill("not the password")
    dialog.get_by_role("button", name="Sign", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("not right")
    assert not Signature.objects.exists()
    page.route("**/api/reads/*/", lambda route: route.abort())  # the connection breaks after the signature
    dialog.get_by_label("Your password").fill(PASSWORD)
    dialog.get_by_role("button", name="Sign", exact=True).click()
    wait_until(lambda: Signature.objects.exists(), what="the signature is kept")
    assert Signature.objects.get().printed_name == reader.printed_name
    expect(page.get_by_role("dialog", name="Signed")).to_contain_text(f"signed by {reader.printed_name}")
    expect(page.locator("body")).to_contain_text("The read as it is now could not be loaded.")
    page.unroute("**/api/reads/*/")

    # The auditor finds where AI and reader differ, opens the slide from the list, and reads the trail.
    log_in(page, site, auditor)
    expect(page).to_have_url(f"{site}/agreement/")
    assert_accessible(page)
    page.get_by_role("region", name="Discordant slides: table").get_by_role("link").click()
    expect(page.get_by_role("list", name="Lesions, strongest first")).to_be_visible(timeout=20_000)
    assert_accessible(page)
    page.goto(f"{site}/trail/")
    for words in (
        "unaided read locked",
        "AI revealed",
        "lesion accepted",
        "decision undone",
        "signing refused",
        "case signed",
    ):
        expect(page.get_by_role("region", name="Events: table")).to_contain_text(words)
    assert_accessible(page)
    assert verify_trail().verdict is Verdict.WHOLE
