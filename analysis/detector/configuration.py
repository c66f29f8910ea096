"""The one description of a detector: its network, the data it learns from, how it learns.

A configuration is a TOML file (`configs/`). An unknown or ill-typed key is an error, never ignored: a misspelt
option that silently falls back to its default is how a training run is wasted.
"""

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PYRAMID_STRIDES = (8, 16, 32, 64)
"""Strides of P3..P6 in input pixels, where the class and box towers look."""
DENSE_STRIDE = 4
"""Stride of the dense branch in input pixels."""


class ConfigurationError(ValueError):
    """The configuration file cannot be used; the message names the key."""


@dataclass(frozen=True)
class NetworkConfig:
    backbone: str = "efficientnet-lite0"
    backbone_stride: int = 16
    """16 or 32: where the backbone stops. The coarser pyramid levels are made from its last map."""
    pyramid_channels: int = 64
    tower_depth: int = 2
    attention: str = "both"
    """none, class, box or both: which towers carry the two gates."""
    gate_windows: tuple[int, ...] = (15, 9, 5, 3)
    """Side of the average window of the channel gate on P3..P6, in cells: about 120-190 input pixels each."""
    spatial_kernel: int = 7
    dense_channels: int = 48

    def __post_init__(self) -> None:
        if self.backbone != "efficientnet-lite0":
            raise ConfigurationError(f"network.backbone: {self.backbone!r} is not known; use 'efficientnet-lite0'")
        if self.backbone_stride not in (16, 32):
            raise ConfigurationError("network.backbone_stride must be 16 or 32")
        if self.attention not in ("none", "class", "box", "both"):
            raise ConfigurationError("network.attention must be none, class, box or both")
        if len(self.gate_windows) != len(PYRAMID_STRIDES) or any(w % 2 == 0 for w in self.gate_windows):
            raise ConfigurationError("network.gate_windows needs four odd numbers, one for each of P3..P6")


@dataclass(frozen=True)
class DataConfig:
    patches: tuple[str, ...] = ("pcam_patches.npz",)
    """Files of patches with a centre label, inside `folder` (format: docs of the data folder)."""
    hard_negatives: tuple[str, ...] = ("pcam_hard_negatives.npz",)
    lesion_outlines: str = "camelyon16_lesion_polygons.npz"
    folder: str = ""
    """Folder of the files above; empty: METADET_REFERENCE_DATA, else ../shared/data beside the repository."""
    test_fold: int = 4
    """Never read by training and never used for a choice."""
    validation_percent: int = 10
    """Part of the other folds kept aside for the choice of the checkpoint, by hash of the patch id."""
    patch_mpp: float = 0.97
    max_patches: int = 0
    """Use at most this many labelled patches (0: all); for learning curves and quick trials."""


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 8
    patch_batch: int = 32
    region_batch: int = 3
    region_px: int = 320
    regions_every: int = 3
    """One step on composed regions after this many steps on patches (0: never)."""
    coarse_share: float = 0.15
    """Share of patch steps read at `coarse_mpp`, so that the same weights can scan there."""
    coarse_mpp: float = 2.0
    learning_rate: float = 1e-3
    backbone_rate_factor: float = 0.5
    weight_decay: float = 0.02
    warmup_steps: int = 60
    ema_decay: float = 0.995
    stain_jitter: float = 0.15
    threads: int = 1
    seed: int = 7
    checkpoint_every_steps: int = 100
    canvas_px: int = 1536
    pretrained: bool = True


@dataclass(frozen=True)
class ReadConfig:
    """How a trained network reads a slide; stored with its weights."""

    mpp: float = 1.0
    scan_mpp: float = 2.0
    seed_probability: float = 0.6
    grow_probability: float = 0.5
    suspicious_probability: float = 0.15
    """`fast` reads a tile again at `mpp` when the scan at `scan_mpp` is anywhere above this."""


@dataclass(frozen=True)
class DetectorConfig:
    name: str = "lite"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    read: ReadConfig = field(default_factory=ReadConfig)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_config(path: Path) -> DetectorConfig:
    """Raises ConfigurationError for a missing file, bad TOML, an unknown key or a value of the wrong type."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigurationError(f"cannot read the configuration {path}: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{path} is not TOML: {problem}") from problem
    return config_from_dict(raw)


def config_from_dict(raw: dict[str, Any]) -> DetectorConfig:
    return typing.cast(DetectorConfig, _build(DetectorConfig, raw, prefix=""))


def _build(kind: type, raw: dict[str, Any], *, prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in raw:
        if key not in known:
            raise ConfigurationError(f"unknown key {prefix}{key}; known here: {', '.join(sorted(known))}")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in raw.items()}
    return kind(**values)


def _convert(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigurationError(f"{key} must be a table")
        return _build(typing.cast(type, hint), value, prefix=key + ".")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigurationError(f"{key} must be a list")
        element = typing.get_args(hint)[0]
        return tuple(_convert(element, item, f"{key}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigurationError(f"{key} must be {hint.__name__}, not {type(value).__name__}")
    return value
