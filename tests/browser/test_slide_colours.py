"""Colours and tiles as Chromium shows them: each kind of slide, the reader's colour profile, other people's viewers."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link
from slides import importing, tile_access
from slides.models import CaseAccess, Slide
from slides.wsi import sandbox
from slides.wsi.tile_store import TileStore
from tests.browser.test_slide_to_signature import log_in, person, state_folder  # noqa: F401  (a fixture)
from tests.conftest import REPOSITORY
from tests.slides.conftest import prepare_now
from tests.slides.wsi.colour_kinds import (
    COLOURS,
    KINDS,
    colours_of,
    differences,
    patch_means,
    scanner_profile,
    write_kind,
)
from tests.slides.wsi.test_colour import corrected

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

OPENSEADRAGON = REPOSITORY / "frontend/node_modules/openseadragon/build/openseadragon/openseadragon.min.js"
DRAWN = """async address => {
  const picture = new Image(); picture.src = address; await picture.decode();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext('2d').drawImage(picture, 0, 0);
  return canvas.toDataURL('image/png');
}"""
STAGE = """() => { const slide = document.querySelector('.stage-slide canvas'), copy = document.createElement('canvas');
  [copy.width, copy.height] = [slide.width, slide.height];
  copy.getContext('2d').drawImage(slide, 0, 0);
  return copy.toDataURL('image/png'); }"""


def picture_of(address: str) -> np.ndarray:
    """The pixels of a canvas, which left it as a PNG without loss."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).convert("RGB"))


def test_chromium_shows_tiles_of_every_kind_in_their_colours(tmp_path: Path, page: Page) -> None:
    page.goto("about:blank")
    for kind in KINDS:
        folder = tmp_path / kind.replace(":", "-")
        for name in ("store", "associated"):
            (folder / name).mkdir(parents=True)
        path = write_kind(folder / "slide.svs", kind)
        made = sandbox.prepare(path, folder / "store", associated_dir=folder / "associated")
        whole = np.zeros((512, 768, 3), np.uint8)
        with TileStore.load(made.tile_store) as store:
            level = store.levels[0]
            for row in range(level.rows):
                for col in range(level.cols):
                    address = "data:image/jpeg;base64," + base64.b64encode(store.tile(0, col, row).data).decode()
                    tile = picture_of(page.evaluate(DRAWN, address))
                    place = whole[row * level.tile_height :, col * level.tile_width :][: tile.shape[0], : tile.shape[1]]
                    place[:] = tile[: place.shape[0], : place.shape[1]]
        found = differences(patch_means(whole), colours_of(kind))
        assert found.mean() < 3, (kind, found.round(1))
        assert found.max() < 5, (kind, found.round(1))


@pytest.fixture
def ready(state_folder: Path, tmp_path: Path) -> Callable[..., Slide]:  # noqa: F811
    """A chart slide, prepared, in a case of its own."""

    def make(kind: str, operator: User, *, icc: bytes = b"") -> Slide:
        path = write_kind(tmp_path / f"{len(list(tmp_path.iterdir()))}.svs", kind, icc=icc)
        result = importing.import_file(path=path, accession=f"C-{path.stem}", actor=operator, hash_now=True)
        assert result.slide is not None, result.reason
        return prepare_now(result.slide.pk)

    return make


def shown(page: Page) -> np.ndarray:
    """The mean colour of each patch of the chart on the stage, which shows the whole slide."""
    page.locator(".stage-slide canvas").first.wait_for(state="attached")
    page.locator(".stage-thumb").wait_for(state="detached")
    whole = picture_of(page.evaluate(STAGE))
    scale = min(whole.shape[1] / 768, whole.shape[0] / 512)
    left, top = (whole.shape[1] - 768 * scale) / 2, (whole.shape[0] - 512 * scale) / 2
    return patch_means(whole[round(top) : round(top + 512 * scale), round(left) : round(left + 768 * scale)])


def wait_for_colours(page: Page, wanted: np.ndarray) -> np.ndarray:
    """Differences once the stage shows `wanted`, or after five seconds: tiles are drawn anew in their own time."""
    found = differences(shown(page), wanted)
    for _ in range(20):
        if found.mean() < 3:
            break
        page.wait_for_timeout(250)
        found = differences(shown(page), wanted)
    return found


@pytest.mark.parametrize("drawer", ["canvas", "webgl"])
def test_the_reader_switches_the_profile(site: str, page: Page, ready: Callable[..., Slide], drawer: str) -> None:
    operator = person("omar", Role.OPERATOR)
    slide = ready("JPEG YCbCr 4:4:4", operator, icc=scanner_profile())
    with TileStore.load(slide.store_folder) as store:
        by_profile = corrected(store.colour_table(), COLOURS[None])[0]
    assert differences(by_profile, COLOURS).mean() > 4, "the two are told apart"
    log_in(page, site, operator)
    page.goto(f"{site}/slides/{slide.pk}/look/?drawer={drawer}")
    assert wait_for_colours(page, by_profile).mean() < 3
    button = page.get_by_role("button", name="Colour profile")
    assert button.get_attribute("aria-pressed") == "true"
    assert "colour profile on: sRGB built-in" in page.locator(".colour-words").inner_text()
    page.keyboard.press("i")
    assert wait_for_colours(page, COLOURS).mean() < 3
    assert button.get_attribute("aria-pressed") == "false"
    page.reload()
    assert wait_for_colours(page, COLOURS).mean() < 3, "it is remembered"
    button.click()
    assert wait_for_colours(page, by_profile).mean() < 3


def test_the_viewer_says_that_there_is_no_profile(site: str, page: Page, ready: Callable[..., Slide]) -> None:
    operator = person("omar", Role.OPERATOR)
    slide = ready("JPEG RGB", operator)
    log_in(page, site, operator)
    page.goto(f"{site}/slides/{slide.pk}/look/")
    assert wait_for_colours(page, COLOURS).mean() < 3
    assert "no colour profile in the file" in page.locator(".colour-words").inner_text()
    assert page.get_by_role("button", name="Colour profile").count() == 0


@pytest.mark.parametrize(
    ("kind", "descriptor"), [("JPEG YCbCr 4:2:0", "info.json"), ("deflate", "info.json"), ("deflate", "slide.dzi")]
)
def test_a_plain_openseadragon_opens_the_descriptors(
    site: str, chromium: Browser, ready: Callable[..., Slide], kind: str, descriptor: str
) -> None:
    """As another program would: its own IIIF and Deep Zoom code over our addresses, in the reader's log-in."""
    operator = person("omar", Role.OPERATOR)
    slide = ready(kind, operator)
    context = chromium.new_context(viewport={"width": 900, "height": 620}, bypass_csp=True)
    page = context.new_page()
    refused: list[str] = []
    page.on(
        "response", lambda answer: refused.append(answer.url) if "/tiles/" in answer.url and not answer.ok else None
    )
    log_in(page, site, operator)
    page.goto(f"{site}/slides/{slide.pk}/look/")
    tiles = page.evaluate(
        """async id => (await (await fetch(`/api/slides/${id}/view/`, {method: 'POST', headers: {'Content-Type': 'application/json',
             'X-CSRFToken': JSON.parse(document.getElementById('boot').textContent).csrf}, body: '{}'})).json()).tiles""",
        str(slide.pk),
    )
    page.evaluate("document.body.replaceChildren()")
    page.add_script_tag(path=OPENSEADRAGON)
    said = page.evaluate(
        """address => new Promise((done, fail) => {
             const place = document.body.appendChild(document.createElement('div'));
             place.style.cssText = 'position: fixed; inset: 0; width: 768px; height: 512px';
             const viewer = OpenSeadragon({element: place, tileSources: [address], drawer: 'canvas', showNavigationControl: false});
             viewer.addHandler('open-failed', event => fail(event.message));
             viewer.addHandler('tile-load-failed', event => fail(event.message));
             viewer.addHandler('open', () => {
               const item = viewer.world.getItemAt(0), source = item.source, size = item.getContentSize();
               const read = () => { const canvas = viewer.drawer.canvas;
                 done([JSON.stringify({width: size.x, height: size.y, levels: source.maxLevel - source.minLevel + 1}), canvas.toDataURL('image/png')]); };
               const settle = () => requestAnimationFrame(() => requestAnimationFrame(read));
               item.getFullyLoaded() ? settle() : item.addOnceHandler('fully-loaded-change', settle);
             });
           })""",
        f"{tiles}{descriptor}",
    )
    facts = json.loads(said[0])
    assert (facts["width"], facts["height"]) == (768, 512)
    assert facts["levels"] >= 2
    found = differences(patch_means(picture_of(said[1])), COLOURS)
    assert found.mean() < 3, found.round(1)
    assert refused == []
    context.close()


def test_the_next_person_at_the_same_browser_sees_no_tile_of_the_last(
    site: str, page: Page, ready: Callable[..., Slide]
) -> None:
    """One window, one cache, one history: the address of a tile that was just seen is nothing after the log-out."""
    operator, reader, stranger = person("omar", Role.OPERATOR), person("ada", Role.READER), person("sam", Role.READER)
    slide = ready("JPEG YCbCr 4:2:0", operator)
    CaseAccess.objects.create(case=slide.case, user=reader)
    log_in(page, site, reader)
    page.goto(f"{site}/worklist/")
    opened = page.evaluate(
        """async id => (await (await fetch(`/api/slides/${id}/view/`, {method: 'POST', body: '{}', headers: {
             'Content-Type': 'application/json', 'X-CSRFToken': document.querySelector('[name=csrfmiddlewaretoken]').value}})).json()).tiles""",
        str(slide.pk),
    )
    tile = f"{site}{opened}0/0_0.jpg"
    fetched = (
        "async address => { const answer = await fetch(address); return [answer.status, (await answer.blob()).size]; }"
    )
    status, size = page.evaluate(fetched, tile)
    assert (status, size > 1000) == (200, True), "it is in the browser's cache now"
    with page.expect_navigation():
        page.locator("form[action='/accounts/logout/']").evaluate("form => form.requestSubmit()")
    # Not by log_in(), which throws the cookies away: they stay, as they do in a browser.
    page.goto(f"{site}/accounts/one-time/{make_one_time_link(user=stranger)}/")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()
    assert any(each["name"] == "metadet_tiles" for each in page.context.cookies(tile)), (
        "the last person's is still there"
    )
    page.wait_for_timeout(tile_access.VERDICT_SECONDS * 1000)
    status, size = page.evaluate(fetched, tile)
    assert (status, size) == (404, 0)
