import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis.detector.patch_file import PatchFileError, compressed_alike, folds_of, load_patches, percent_of
from tests.analysis.detector.conftest import tissue_like


def write_patches(
    path: Path,
    *,
    n: int = 12,
    side: int = 96,
    broken: bool = False,
    recolour: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]] = lambda rgb, number: rgb,
    **changes: object,
) -> Path:
    """A patch file with alternating labels 0, 1, -1; tumour patches are brighter."""
    label = np.array([(0, 1, -1)[i % 3] for i in range(n)], np.int8)
    blobs = []
    for i in range(n):
        buffer = io.BytesIO()
        rgb = tissue_like(side, side, seed=i)
        rgb = np.clip(rgb + 40 * (label[i] == 1), 0, 255).astype(np.uint8)
        Image.fromarray(recolour(rgb, i)).save(buffer, "PNG")
        blobs.append(b"no image" if broken and i == 1 else buffer.getvalue())
    arrays: dict[str, object] = {
        "data": np.frombuffer(b"".join(blobs), np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)]),
        "id": np.array([f"id{i}" for i in range(n)]),
        "label": label,
        "stain": np.array(["brown", "purple"] * (n // 2)),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})  # type: ignore[arg-type]
    return path


def test_patches_are_read_with_their_labels(tmp_path: Path) -> None:
    patches = load_patches(write_patches(tmp_path / "p.npz"))
    assert patches.rgb.shape == (12, 96, 96, 3)
    assert patches.label.tolist()[:3] == [0, 1, -1]
    assert set(patches.stain) == {"brown", "purple"}
    assert patches.fold.tolist() == folds_of(patches.ids).tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": None}, "lacks label"),
        ({"offsets": np.array([0, 5])}, "12 labels but 2 offsets"),
        ({"broken": True}, "patch 1 is no image"),
    ],
)
def test_a_file_that_is_no_patch_file_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    path = write_patches(tmp_path / "p.npz", **changes)  # type: ignore[arg-type]
    with pytest.raises(PatchFileError, match=reason):
        load_patches(path)


def test_pickled_arrays_and_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", data=np.array([{}], dtype=object), offsets=np.array([0, 1]), label=np.array([0]))
    (tmp_path / "text.npz").write_text("not an archive")
    for name in ("objects.npz", "text.npz", "absent.npz"):
        with pytest.raises((PatchFileError, ValueError), match=r"pickle|cannot read|not a patch file|Object arrays"):
            load_patches(tmp_path / name)


def test_folds_are_fixed_and_about_even() -> None:
    ids = np.array([f"patch {i}" for i in range(2000)])
    counts = np.bincount(folds_of(ids), minlength=5)
    assert counts.min() > 330
    assert percent_of("patch 1", salt="fold") == percent_of("patch 1", salt="fold")
    assert [percent_of(f"patch {i}", salt="a") for i in range(5)] != [
        percent_of(f"patch {i}", salt="b") for i in range(5)
    ]


def blockiness(rgb: np.ndarray) -> float:
    """How much greater the steps between blocks of 8 px are than those inside."""
    steps = np.abs(np.diff(rgb.astype(float).mean(axis=-1), axis=2)).mean(axis=(0, 1))
    at_edges = np.arange(len(steps)) % 8 == 7
    return float(steps[at_edges].mean() / steps[~at_edges].mean())


def test_what_was_compressed_is_not_to_be_told_from_what_was_not(tmp_path: Path) -> None:
    sharp = load_patches(write_patches(tmp_path / "p.npz"))
    once = compressed_alike(sharp)
    assert np.abs(once.rgb.astype(int) - sharp.rgb).mean() > 0.5
    assert np.array_equal(once.ids, sharp.ids)
    # what came as JPEG is nearly what it was
    twice = compressed_alike(once)
    assert np.abs(twice.rgb.astype(int) - once.rgb).mean() < 0.5 * np.abs(once.rgb.astype(int) - sharp.rgb).mean()
    assert blockiness(twice.rgb) == pytest.approx(blockiness(once.rgb), rel=0.02)
