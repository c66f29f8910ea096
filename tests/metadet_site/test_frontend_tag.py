"""The template tag that puts the built front end into a page."""

import json
import os
from pathlib import Path

import pytest
from django.template import Context, Template
from pytest_django import Settings

from metadet_site.templatetags.frontend import FrontEndNotBuilt

MANIFEST = {
    "src/viewer.ts": {
        "file": "assets/viewer-1.js",
        "name": "viewer",
        "isEntry": True,
        "imports": ["_dom-2.js"],
        "dynamicImports": ["src/selftest/page.ts"],
        "css": ["assets/viewer-3.css"],
    },
    "_dom-2.js": {"file": "assets/dom-2.js", "name": "dom", "css": ["assets/shared-4.css"]},
    "src/selftest/page.ts": {"file": "assets/page-5.js", "name": "page", "isDynamicEntry": True},
}


@pytest.fixture
def dist(tmp_path: Path, settings: Settings) -> Path:
    (tmp_path / ".vite").mkdir()
    (tmp_path / ".vite" / "manifest.json").write_text(json.dumps(MANIFEST))
    settings.FRONTEND_DIST = tmp_path
    return tmp_path


def render(name: str) -> str:
    return Template("{% load frontend %}{% frontend '" + name + "' %}").render(Context())


def test_an_entry_brings_its_styles_its_chunks_and_its_script(dist: Path) -> None:
    assert render("viewer").splitlines() == [
        '<link rel="stylesheet" href="/static/frontend/assets/shared-4.css">',
        '<link rel="stylesheet" href="/static/frontend/assets/viewer-3.css">',
        '<link rel="modulepreload" href="/static/frontend/assets/dom-2.js">',
        '<script type="module" src="/static/frontend/assets/viewer-1.js"></script>',
    ]


def test_an_unknown_entry_is_named(dist: Path) -> None:
    with pytest.raises(FrontEndNotBuilt, match="'worklist'"):
        render("worklist")


def test_a_chunk_that_is_no_entry_cannot_be_put_into_a_page(dist: Path) -> None:
    with pytest.raises(FrontEndNotBuilt):
        render("dom")


def test_without_a_build_the_message_says_how_to_build(tmp_path: Path, settings: Settings) -> None:
    settings.FRONTEND_DIST = tmp_path
    with pytest.raises(FrontEndNotBuilt, match="npm run build"):
        render("viewer")


def test_a_new_build_is_seen_without_a_restart(dist: Path) -> None:
    render("viewer")
    manifest = {"src/viewer.ts": {"file": "assets/viewer-9.js", "name": "viewer", "isEntry": True}}
    path = dist / ".vite" / "manifest.json"
    path.write_text(json.dumps(manifest))
    stamp = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(stamp, stamp))
    assert "viewer-9.js" in render("viewer")
