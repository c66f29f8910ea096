"""The web process stays light and decodes nothing: its modules load neither torch nor a slide library."""

import os
import subprocess
import sys

import pytest

HEAVY = ["torch", "openslide", "tifffile", "pyvips", "large_image", "large_image_source_tiff", "imagecodecs"]
LOAD_THE_SITE = """
import sys
from metadet_site.wsgi import application
from django.urls import get_resolver

def load(resolver):
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            load(pattern)
        else:
            pattern.callback

load(get_resolver())
print(*sorted(name for name in sys.modules if "." not in name))
"""
LOAD_A_SLIDE_READER = (
    "import sys; import slides.wsi.reader; print(*sorted(name for name in sys.modules if '.' not in name))"
)


def modules_after(lines: str) -> set[str]:
    environment = {**os.environ, "METADET_SECRET_KEY": "x" * 50, "DJANGO_SETTINGS_MODULE": "metadet_site.settings"}
    loaded = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, env=environment)
    assert loaded.returncode == 0, loaded.stderr
    return set(loaded.stdout.split())


@pytest.fixture(scope="module")
def web_modules() -> set[str]:
    return modules_after(LOAD_THE_SITE)


@pytest.mark.parametrize("heavy", HEAVY)
def test_the_site_does_not_load(web_modules: set[str], heavy: str) -> None:
    assert "slides" in web_modules  # the site itself was loaded
    assert heavy not in web_modules


def test_the_check_above_can_see_a_slide_library() -> None:
    assert {"openslide", "pyvips"} & modules_after(LOAD_A_SLIDE_READER)
