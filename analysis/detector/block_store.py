"""Finished parts of a run on disk, so that a killed run goes on where it was and gives the same bytes.

Each part is a numpy archive written whole and moved into place; a part that was being written when the process died
is not there. The folder belongs to one plan: parts of another slide, model, profile or plan are thrown away.
"""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class BlockStore:
    def __init__(self, folder: Path | None, *, plan: dict[str, Any]) -> None:
        """`folder` None keeps nothing. `plan` is everything that decides the result (JSON-able)."""
        self.folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
        note = folder / "plan.txt"
        if not note.exists() or note.read_text() != key:
            for old in folder.glob("block-*.npz"):
                old.unlink()
            note.write_text(key)

    def get(self, name: str) -> Arrays | None:
        if self.folder is None:
            return None
        path = self.folder / f"block-{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            return None  # absent or damaged: it is computed again

    def put(self, name: str, arrays: Arrays) -> None:
        if self.folder is None:
            return
        unfinished = self.folder / f"block-{name}.part"
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.folder / f"block-{name}.npz")
