import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference_slides() -> Path:
    """Real slide files that are not part of the repository."""
    data = Path(os.environ.get("METADET_REFERENCE_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
    folder = data / "slides"
    if not folder.is_dir():
        pytest.skip("no reference slides: set METADET_REFERENCE_DATA to the folder that holds slides/")
    return folder


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Empty output and associated folders for `prepare`."""
    folders = tmp_path / "store", tmp_path / "associated"
    for folder in folders:
        folder.mkdir()
    return folders
