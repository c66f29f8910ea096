"""What model versions can be measured on here: what the configuration names and what is there. Opens no slide."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from analysis.detector.card import file_sha256
from analysis.enums import EvaluationKind
from analysis.errors import CannotEvaluate

HOW_TO_NAME_ONE = (
    "No evaluation set is there. The administrator of the server names one: METADET_EVALUATION_PATCHES (a file of "
    "labelled patches) or METADET_EVALUATION_SLIDES (folders of slides with reference.csv and outlines)."
)


@dataclass(frozen=True)
class EvaluationSet:
    name: str
    """As it is chosen and shown: the file's or folder's own name behind its kind."""
    kind: EvaluationKind
    path: Path

    def sha256(self) -> str:
        """Of the patch file, or of the names and bytes of all files of the folder. Raises OSError."""
        if self.kind == EvaluationKind.PATCHES:
            return file_sha256(self.path)
        digest = hashlib.sha256()
        for file in _files(self.path):
            digest.update(f"{file.relative_to(self.path)}\0{file_sha256(file)}\n".encode())
        return digest.hexdigest()


def evaluation_sets() -> list[EvaluationSet]:
    """Those that are there. Two folders of one name are told apart by the folder above."""
    sets = []
    patches: Path = settings.EVALUATION_PATCHES
    if patches.is_file():
        sets.append(EvaluationSet(f"patches: {patches.name}", EvaluationKind.PATCHES, patches))
    folders = [folder for folder in settings.EVALUATION_SLIDES if (folder / "reference.csv").is_file()]
    names = [folder.name for folder in folders]
    for folder in folders:
        name = folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}"
        sets.append(EvaluationSet(f"slides: {name}", EvaluationKind.SLIDES, folder))
    return sets


def evaluation_set(name: str) -> EvaluationSet:
    """Raises CannotEvaluate."""
    sets = evaluation_sets()
    found = next((one for one in sets if one.name == name), None)
    if found is None:
        raise CannotEvaluate(f"There is no evaluation set {name!r} here (any more)." if sets else HOW_TO_NAME_ONE)
    return found


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
