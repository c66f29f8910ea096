"""Which files belong to a slide: most are one file, some need a folder beside it."""

from pathlib import Path

_WITH_FOLDER_OF_SAME_NAME = {".mrxs"}
_LISTS_ITS_FILES = {".vms", ".vmu", ".ndpis"}


def files_of(path: Path) -> list[Path]:
    """The file (or DICOM folder) and its companions; the child is shown these and nothing else.

    Hamamatsu index files name their images inside, so that all files of their folder with the same beginning of the
    name are shown.
    """
    suffix = path.suffix.lower()
    if suffix in _WITH_FOLDER_OF_SAME_NAME:
        folder = path.with_suffix("")
        return [path, folder] if folder.is_dir() else [path]
    if suffix in _LISTS_ITS_FILES:
        return sorted(member for member in path.parent.iterdir() if member.name.startswith(path.stem))
    return [path]
