"""docs/reference/formats.md says what the product does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from slides.wsi import sandbox

from . import formats
from .warm_child import started_warm

HOW = "run `python -m tests.slides.corpus.formats` and look at what changed"


@pytest.fixture(autouse=True, scope="module")
def warm() -> Iterator[None]:
    with started_warm(sandbox):
        yield


def test_the_table_of_made_layouts_is_up_to_date() -> None:
    assert formats.made_table() in formats.PAGE.read_text("utf-8"), HOW


def test_the_table_of_reference_files_is_up_to_date(reference_slides: Path) -> None:
    assert formats.reference_table(reference_slides) in formats.PAGE.read_text("utf-8"), HOW
