"""Where the reference data (real patches, lesion outlines) lie."""

import os
from pathlib import Path

ENVIRONMENT_NAME = "METADET_REFERENCE_DATA"
_BESIDE_REPOSITORY = Path(__file__).resolve().parents[2].parent / "shared" / "data"


class ReferenceDataMissing(FileNotFoundError):
    """The message says how to name the folder."""


def reference_data_folder(configured: str = "") -> Path:
    """The folder named in the configuration, else in METADET_REFERENCE_DATA, else ../shared/data beside the repository."""
    folder = Path(configured or os.environ.get(ENVIRONMENT_NAME, "") or _BESIDE_REPOSITORY)
    if not folder.is_dir():
        raise ReferenceDataMissing(f"no reference data at {folder}; set {ENVIRONMENT_NAME} to the folder that holds it")
    return folder
