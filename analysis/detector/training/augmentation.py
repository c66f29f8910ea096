"""Changes a patch or region may show without changing what it is: turn, stain, focus, compression, scale."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional

# Haematoxylin, eosin, residual: Ruifrok and Johnston 2001, rows are optical densities of R, G, B.
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_STAINS).astype(np.float32)


def jitter_stain(
    rgb: NDArray[np.uint8], *, strength: float, rng: np.random.Generator, mixing: float = 0.0
) -> NDArray[np.uint8]:
    """Scale and shift each stain's amount in optical density; rgb (B, H, W, 3). `mixing`: standard deviation by which the three
    densities then go into one another, as if by another scanner's colours."""
    b = len(rgb)
    gain = 1 + strength * rng.normal(size=(b, 3)).astype(np.float32) * np.array([1.2, 1.2, 0.8], np.float32)
    shift = 0.12 * strength * rng.normal(size=(b, 3)).astype(np.float32)
    # unmix, scale and mix again as one 3x3 matrix for each image
    mix = np.einsum("ij,bj,jk->bik", _UNMIX, np.clip(gain, 0.4, 1.8), _STAINS)
    offset = shift @ _STAINS
    if mixing:
        mix = mix @ (np.eye(3, dtype=np.float32) + mixing * rng.normal(size=(b, 3, 3)).astype(np.float32))
    density = -torch.log((torch.from_numpy(np.ascontiguousarray(rgb)).float() + 1.0) / 256.0)
    moved = torch.matmul(density.view(b, -1, 3), torch.from_numpy(mix)) + torch.from_numpy(offset)[:, None]
    out = (256.0 * torch.exp(-moved) - 0.5).clamp_(0, 255).to(torch.uint8)
    return out.view(rgb.shape).numpy()


def degrade(rgb: NDArray[np.uint8], *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur some, compress half of the images. rgb (B, H, W, 3).

    Most known hard negatives went through JPEG and the other patches did not: unless all kinds are compressed as often,
    a network learns the compression.
    """
    out = rgb.copy()
    for i in range(len(out)):
        if rng.random() < 0.2:
            out[i] = gaussian_filter(out[i], sigma=(s := rng.uniform(0.3, 1.3), s, 0))
        if rng.random() < 0.5:
            buffer = io.BytesIO()
            Image.fromarray(out[i]).save(buffer, "JPEG", quality=int(rng.integers(55, 97)))
            out[i] = np.asarray(Image.open(buffer))
    return out


def rescale(rgb: NDArray[np.uint8], *, factor: float, side: int) -> NDArray[np.uint8]:
    """Zoom a batch (B, H, W, 3) by `factor` about the centre, then crop or mirror to `side`."""
    x = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float()
    size = max(8, round(x.shape[-1] * factor))
    if size != x.shape[-1]:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=factor < 1, align_corners=False)
    out = x.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return fit_to(out, side)


def coarser(rgb: NDArray[np.uint8], *, patch_mpp: float, mpp: float) -> tuple[NDArray[np.uint8], float]:
    """A batch (B, s, s, 3) at `patch_mpp` as pixels of about `mpp`, and of exactly how many um."""
    side = max(8, round(rgb.shape[1] * patch_mpp / mpp))
    factor = side / rgb.shape[1]
    return rescale(rgb, factor=factor, side=side), patch_mpp / factor


def shown_side(patch_px: int, mpp: float) -> int:
    """Side of a patch of about 1 um/px as a network is shown it at `mpp`: it is mirrored or cropped to this."""
    return max(64, round(patch_px / mpp / 32) * 32)


def fit_to(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Crop or mirror-pad a batch of squares (B, s, s, 3) about the centre to `side`."""
    have = rgb.shape[1]
    if have > side:
        start = (have - side) // 2
        return rgb[:, start : start + side, start : start + side]
    before = (side - have) // 2
    after = side - have - before
    return np.pad(rgb, ((0, 0), (before, after), (before, after), (0, 0)), mode="symmetric")
