"""Files of labelled tissue patches (.npz): many compressed images in one byte stream, with a centre label each.

Format: `data` (bytes of all images), `offsets`, `id`, `label` (1: the centre 32x32 px of the 96x96 px patch holds
tumour, 0: it does not, -1: unknown), optionally `stain`, `fold`, `white`. Never a pickle.
"""

import hashlib
import io
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDS = 5
ALIKE_QUALITY = 95
"""JPEG, the colours at half resolution: as 1,826 of the 1,924 known hard negatives come, and no other patch."""


class PatchFileError(ValueError):
    """The file is not a patch file; the message says what is missing."""


@dataclass(frozen=True)
class PatchSet:
    """Patches side by side; all arrays have one entry per patch."""

    rgb: NDArray[np.uint8]  # (n, side, side, 3)
    ids: NDArray[np.str_]
    label: NDArray[np.int8]
    stain: NDArray[np.str_]
    fold: NDArray[np.int8]
    white: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "PatchSet":
        return PatchSet(
            self.rgb[chosen],
            self.ids[chosen],
            self.label[chosen],
            self.stain[chosen],
            self.fold[chosen],
            self.white[chosen],
        )


def load_patches(path: Path) -> PatchSet:
    """Raises PatchFileError with words for a file that cannot be read, lacks an array or holds a broken image."""
    try:
        stored = np.load(path, allow_pickle=False)
    except OSError as problem:
        raise PatchFileError(f"cannot read {path}: {problem}") from problem
    except ValueError as problem:
        raise PatchFileError(f"{path} is not a patch file (.npz): {problem}") from problem
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise PatchFileError(f"{path} is a single array, not a patch file (.npz)")
    missing = [name for name in ("data", "offsets", "label") if name not in stored.files]
    if missing:
        raise PatchFileError(f"{path} lacks {', '.join(missing)}")
    label = stored["label"].astype(np.int8)
    n = len(label)
    if len(stored["offsets"]) != n + 1:
        raise PatchFileError(f"{path}: {n} labels but {len(stored['offsets'])} offsets (one more than labels expected)")
    ids = stored["id"] if "id" in stored.files else np.array([f"{i:08x}" for i in range(n)])
    rgb = _decode_all(stored["data"], stored["offsets"], path)
    white = (rgb.min(axis=-1) > 220).mean(axis=(1, 2)).astype(np.float32)
    return PatchSet(
        rgb=rgb,
        ids=ids,
        label=label,
        stain=stored["stain"] if "stain" in stored.files else np.full(n, "unknown"),
        fold=stored["fold"].astype(np.int8) if "fold" in stored.files else folds_of(ids),
        white=white,
    )


def _decode_all(data: NDArray[np.uint8], offsets: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
    images = []
    for i, (start, end) in enumerate(pairwise(offsets)):
        try:
            images.append(np.asarray(Image.open(io.BytesIO(data[start:end].tobytes())).convert("RGB")))
        except (OSError, ValueError) as problem:
            raise PatchFileError(f"{path}: patch {i} is no image ({problem})") from problem
    if len({image.shape for image in images}) > 1:
        raise PatchFileError(f"{path}: the patches are not all of one size")
    return np.stack(images) if images else np.zeros((0, 96, 96, 3), np.uint8)


def compressed_alike(patches: PatchSet) -> PatchSet:
    """All of them as JPEG left those that came as JPEG (ALIKE_QUALITY), so that nothing but tissue tells one kind from the
    other. Those that were compressed so before hardly change: the same blocks, the same steps."""
    rgb = patches.rgb.copy()
    for each in rgb:
        buffer = io.BytesIO()
        Image.fromarray(each).save(buffer, "JPEG", quality=ALIKE_QUALITY, subsampling="4:2:0")
        each[:] = np.asarray(Image.open(buffer))
    return replace(patches, rgb=rgb)


def folds_of(ids: NDArray[np.str_]) -> NDArray[np.int8]:
    """A fixed fold for patches that come without one, from their id alone."""
    return np.array([percent_of(str(i), salt="fold") * FOLDS // 100 for i in ids], dtype=np.int8)


def percent_of(patch_id: str, *, salt: str) -> int:
    """0..99, the same on every machine."""
    return int(hashlib.sha256(f"{salt}:{patch_id}".encode()).hexdigest()[:8], 16) % 100
