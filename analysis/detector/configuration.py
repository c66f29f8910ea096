"""The one description of a detector: its network, the data it learns from, how it learns.

A configuration is a TOML file (`configs/`). An unknown or ill-typed key is an error, never ignored: a misspelt
option that silently falls back to its default is how a training run is wasted.
"""

import dataclasses
import math
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PYRAMID_STRIDES = (8, 16, 32, 64)
"""Strides of P3..P6 in input pixels, where the class and box towers look."""
PRETRAINED = ("efficientnet-lite0", "efficientnet-lite2")
"""Backbones that there are ImageNet weights for."""
BACKBONES = (*PRETRAINED, "efficientnet-lite0-half", "efficientnet-lite0-lean", "resnet18", "resnet34")
SHIPPED = "shipped"
RETIRED = {"read": ("box_probability", "suspicious_probability")}
"""Keys of earlier versions, by table: a model version that carries one is still good."""
BEFORE: dict[str, dict[str, Any]] = {
    "read": {
        "candidate_score": 0.0,
        "second_look": False,
        "give_up_score": 0.0,
        "box_score": 0.0,
        "bridge_probability": 1.0,
        "scan_grow_probability": 0.4,
        "scan_stands_out": 0.0,
    },
    "data": {"scanner_by": "column"},
}
"""What a card means that does not name the key, because its version is older than the key's default of today."""
DENSE_STRIDES = (4, 8)
MOST_TIMES = 4
"""How many times a field may be enlarged: the work grows with the square."""
DEVICES = ("auto", "cpu", "cuda")


class ConfigurationError(ValueError):
    """The configuration file cannot be used; the message names the key."""


@dataclass(frozen=True)
class NetworkConfig:
    backbone: str = "efficientnet-lite0"
    """efficientnet-lite0 or -lite2, Lite0 with half of its channels (efficientnet-lite0-half) or with half of those inside its
    blocks (efficientnet-lite0-lean), resnet18 or resnet34."""
    colours: str = "all"
    """all, or green: the first convolution looks at green alone, which is nearly the same on all scanners. For reading slides of
    a scanner that there are no patches of; where there are, colour is worth having (ADR 20)."""
    backbone_stride: int = 16
    """16 or 32: where the backbone stops. The coarser pyramid levels are made from its last map."""
    pyramid_channels: int = 64
    tower_depth: int = 2
    attention: str = "both"
    """none, class, box or both: which towers carry the two gates."""
    gate: str = "windowed"
    """windowed or global: what the channel gate averages over. A global gate makes a score depend on where the tile was
    cut; it is there to be measured."""
    heads: str = "both"
    """both, mask (dense branch alone, no boxes) or box (class and box tower alone; the class tower's finest map stands in
    for the dense one)."""
    gate_windows: tuple[int, ...] = (15, 9, 5, 3)
    """Side of the average window of the channel gate on P3..P6, in cells: about 120-190 input pixels each."""
    spatial_kernel: int = 7
    dense_channels: int = 48
    dense_stride: int = 4
    """Input pixels between the cells of the dense branch: 4 or 8. The whole-slide map has cells of 8 um, which is 8 px at
    1.0 um/px: 8 costs a quarter and needs no map at stride 4."""

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigurationError(f"network.backbone: {self.backbone!r} is not known; use {', '.join(BACKBONES)}")
        if self.colours not in ("all", "green"):
            raise ConfigurationError("network.colours must be all or green")
        if self.backbone_stride not in (16, 32):
            raise ConfigurationError("network.backbone_stride must be 16 or 32")
        if self.dense_stride not in DENSE_STRIDES:
            raise ConfigurationError("network.dense_stride must be 4 or 8")
        if self.attention not in ("none", "class", "box", "both"):
            raise ConfigurationError("network.attention must be none, class, box or both")
        if self.gate not in ("windowed", "global"):
            raise ConfigurationError("network.gate must be windowed or global")
        if self.heads not in ("both", "mask", "box"):
            raise ConfigurationError("network.heads must be both, mask or box")
        if len(self.gate_windows) != len(PYRAMID_STRIDES) or any(w % 2 == 0 for w in self.gate_windows):
            raise ConfigurationError("network.gate_windows needs four odd numbers, one for each of P3..P6")


@dataclass(frozen=True)
class DataConfig:
    patches: tuple[str, ...] = ("pcam_patches.npz",)
    """Files of patches with a centre label, inside `folder` (format: docs of the data folder)."""
    hard_negatives: tuple[str, ...] = ("pcam_hard_negatives.npz",)
    slides: tuple[str, ...] = ()
    """Folders of annotated slides (docs/how-to/train.md); relative ones are looked for beside the configuration file."""
    slide_share: float = 0.5
    """Share of training regions cut from slides; the others are composed of patches. 1 where there are no patches."""
    slide_splits: str = ""
    """CSV with the columns slide and split (train, validation, test); empty: by hash of the slide or patient."""
    partly_annotated: tuple[str, ...] = ()
    """Further slides on which not every metastasis is outlined; those of CAMELYON16 are known."""
    exclude: tuple[str, ...] = ()
    """Names of slides to leave out."""
    mask_tumour_value: int = 0
    """What means tumour in mask images: 1, 2 or 255 (0: found over all masks of the folder)."""
    slide_cache_mb: int = 4000
    """Disk for cut fields of slides, in the folder of the run (0: read from the slides each time)."""
    lesion_outlines: str = "camelyon16_lesion_polygons.npz"
    folder: str = ""
    """Folder of the files above; empty: METADET_REFERENCE_DATA, else ../shared/data beside the repository."""
    test_fold: int = 4
    """Never read by training (but see `every_fold`) and never used for a choice."""
    validation_percent: int = 10
    """Part of the other folds kept aside for the choice of the checkpoint, by hash of the patch id."""
    patch_mpp: float = 0.97
    max_patches: int = 0
    """Use at most this many labelled patches (0: all); for quick trials."""
    fraction: float = 1.0
    """Share of the labelled training patches (hard negatives too), chosen by hash of their id and `train.seed` within
    each label and stain; a larger share holds every smaller one of the same seed."""
    composed_slides: int = 0
    """Draw training regions from this many composed slides only (0: from endless ones)."""
    train_stain: str = ""
    """Train and validate on the patches of this scanner alone, for example brown or purple (empty: all)."""
    every_fold: bool = False
    """Of that scanner the test fold is learnt from, too; the test fold of the others stays for the test."""
    scanner_by: str = "colour"
    """How the scanner of a patch is known: colour (of its tissue, beside the column `stain`: `scanner_colour.py`) or column."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigurationError("data.fraction lies above 0 and at most at 1")
        if self.composed_slides < 0:
            raise ConfigurationError("data.composed_slides must not be negative")
        if not 0 <= self.slide_share <= 1:
            raise ConfigurationError("data.slide_share lies between 0 and 1")
        if self.scanner_by not in ("colour", "column"):
            raise ConfigurationError("data.scanner_by must be colour or column")
        if self.every_fold and not self.train_stain:
            raise ConfigurationError(
                "data.every_fold leaves nothing for a test unless data.train_stain names one scanner"
            )
        if self.mask_tumour_value not in (0, 1, 2, 255):
            raise ConfigurationError("data.mask_tumour_value must be 0, 1, 2 or 255")


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 8
    patch_batch: int = 32
    region_batch: int = 3
    region_px: int = 320
    regions_every: int = 3
    """One step on composed regions after this many steps on patches (0: never, -1: nothing but regions)."""
    mpp: float = 1.0
    """um per px at which patches and regions are shown in training, apart from the share at `coarse_mpp`."""
    coarse_share: float = 0.15
    """Share of patch steps read at `coarse_mpp`, so that the same weights can scan there."""
    coarse_mpp: float = 2.0
    coarse_enlarged: bool = False
    """What is read at `coarse_mpp` is shown enlarged to `mpp`, as a slide that has no finer pixels would be. Teachers see it sharp."""
    learning_rate: float = 1e-3
    backbone_rate_factor: float = 0.5
    weight_decay: float = 0.02
    warmup_steps: int = 60
    ema_decay: float = 0.995
    stain_jitter: float = 0.15
    colour_mixing: float = 0.0
    """By how much (standard deviation) a colour's density goes into another's, as with another scanner: 0.15 where the slides of
    one will be read of which there are no patches."""
    mixup: float = 0.0
    """Share of the patches of a batch that are blended with another one, their labels too (Zhang et al. 2018, arXiv 1710.09412)."""
    teachers: tuple[str, ...] = ()
    """Folders of model versions, of any network (relative ones are looked for beside the configuration file): the mean of
    what they say of a patch as it is shown is learnt from too, over its whole field. Patches without a label then serve
    as well. One that was trained at a finer spacing sees the same field enlarged."""
    teacher_share: float = 0.7
    """What the teachers' word on the centre of a patch weighs; the rest is the label's."""
    unlabelled_share: float = 0.2
    """Of a batch, where there are teachers: patches without a label."""
    threads: int = 1
    device: str = "auto"
    """Where the network learns: cpu, cuda, or auto: cuda where torch finds one."""
    workers: int = 0
    """Processes that prepare batches beside the training (0: none, the training prepares them itself)."""
    seed: int = 7
    checkpoint_every_steps: int = 100
    """A run that is killed loses at most this many steps."""
    regions_per_epoch: int = 600
    """Length of an epoch where no patches are learnt from."""
    patience: int = 0
    """Stop when validation has not become better for this many epochs (0: train to the end)."""
    hard_negative_every: int = 0
    """Look for false finds in normal tissue after every so many epochs (0: never)."""
    hard_negative_fields: int = 2000
    """Most fields of slides that one such round looks at."""
    hard_negative_cap: int = 500
    """Most fields, and most patches, in the pool of false finds."""
    canvas_px: int = 1536
    pretrained: bool = True
    """Begin with ImageNet weights."""
    start_from: str = ""
    """Begin with the weights of a model version, of whichever of its networks is the same one: its folder (a relative one is
    looked for beside the configuration file), or `shipped`."""

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ConfigurationError("train.device must be auto, cpu or cuda")
        for name in ("mixup", "teacher_share", "unlabelled_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"train.{name} lies between 0 and 1")
        if self.coarse_enlarged and self.coarse_mpp <= self.mpp:
            raise ConfigurationError("train.coarse_mpp must be more than train.mpp where train.coarse_enlarged is set")
        if self.colour_mixing < 0:
            raise ConfigurationError("train.colour_mixing must not be negative")
        for name in ("workers", "patience", "hard_negative_every", "hard_negative_fields", "hard_negative_cap"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"train.{name} must not be negative")
        for name in ("epochs", "checkpoint_every_steps", "regions_per_epoch"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"train.{name} must be at least 1")

    @property
    def mostly_coarse(self) -> bool:
        """Whether most of what is learnt are coarse pixels enlarged: then it is known by these how good the weights are."""
        return self.coarse_enlarged and self.coarse_share > 0.5


@dataclass(frozen=True)
class ScanConfig:
    """The small network that scans for `fast`; stored with the weights of the network that reads."""

    steps: int = 0
    """How long it learns from the trained network (0: there is none, the network itself scans)."""
    most_fields: int = 3000
    """How many fields of training tissue the trained network reads for it, at most."""
    backbone: str = "efficientnet-lite0-half"
    pyramid_channels: int = 32
    dense_channels: int = 24
    dense_stride: int = 8

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigurationError("scan.steps must not be negative")

    @property
    def network(self) -> NetworkConfig:
        return NetworkConfig(
            backbone=self.backbone,
            pyramid_channels=self.pyramid_channels,
            dense_channels=self.dense_channels,
            dense_stride=self.dense_stride,
            attention="none",
            heads="mask",
        )


@dataclass(frozen=True)
class LookConfig:
    """Another network that looks again at the candidates; stored with the weights of the one that reads."""

    version: str = ""
    """Of the model whose weights it has (empty: there is none, the network that reads looks again alone)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    alone: bool = False
    """The network that reads does not look again itself: it says at its first look what it would say at eight (`slim.py`)."""


@dataclass(frozen=True)
class CloserConfig:
    """A network that looks at the candidates closer, beside what looks at them again; stored with the weights of the one that
    reads. `fast` does not ask it."""

    version: str = ""
    """Of the model whose weights it has (empty: there is none)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    mpp: float = 0.5
    """um per px that it knows, a half of the reading's or a third and so on: it sees the same field enlarged."""
    ways: int = 2
    """How many of the eight ways up it sees a candidate, an even number."""

    def __post_init__(self) -> None:
        if self.ways not in (2, 4, 6, 8):
            raise ConfigurationError("closer.ways must be 2, 4, 6 or 8")


@dataclass(frozen=True)
class ReadConfig:
    """How a trained network reads a slide; stored with its weights."""

    mpp: float = 1.0
    scan_mpp: float = 2.0
    seed_probability: float = 0.6
    grow_probability: float = 0.5
    bridge_probability: float = 0.25
    """Foci farther apart than 75 um, and nearer than 150 um, are one metastasis where what lies between them has this probability;
    1: never. On 105 composed validation slides with tumour 0.2 to 0.3 leave 3 to 6 of 148 metastases in pieces, 1 leaves 12; no
    more of them are taken for one."""
    scan_score: float = 0.5
    """`fast`: a find of the scan of this score is glanced at, at `mpp`."""
    scan_grow_probability: float = 0.45
    """What of the scan's map around it belongs to such a find."""
    scan_stands_out: float = 1.1
    """`fast`: such a find is glanced at only if the scan believes in it more than in the tissue around it by this, in log odds."""
    glance_score: float = 0.6
    """`fast`: what has this score at a glance is read at `mpp`, with what surrounds it."""
    most_above_scan: float = 1.75
    """Where a network of its own scans, no find is believed more than the scan believes in it by more than this, in log odds.
    On 60 composed validation slides 1.5 to 2 take half of the false finds away and no true one."""
    margin_px: int = 0
    """How far the network looks at `mpp`, measured (`python -m analysis.detector.influence`), a multiple of 32; this much
    around a window is read and thrown away. 0: what is usual for the backbone and its stride."""
    scan_margin_px: int = 0
    """The same at `scan_mpp`, where a coarser agreement is enough."""
    candidate_score: float = 0.75
    """A find of this score is a candidate: it is looked at again, and if it keeps the score a box is looked for. On 60
    composed validation slides all 56 true finds that 0.7 lets through reach it, and 356 of 618 false ones."""
    second_look: bool = True
    """Look again at the strongest candidates, eight ways up, at 0.5 um/px where the slide has it."""
    give_up_score: float = 0.75
    """A candidate that both looks together believe less, once two of the eight ways up are seen, is not looked at further."""
    box_score: float = 0.8
    """A box is looked for where both looks together say at least this (and `candidate_score`)."""


@dataclass(frozen=True)
class DetectorConfig:
    name: str = "lite"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    read: ReadConfig = field(default_factory=ReadConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    look: LookConfig = field(default_factory=LookConfig)
    closer: CloserConfig = field(default_factory=CloserConfig)

    def __post_init__(self) -> None:
        if self.train.pretrained and self.network.backbone not in PRETRAINED:
            raise ConfigurationError(
                f"train.pretrained: there are no weights for {self.network.backbone}; set it to false"
            )
        if self.closer.version and times_finer(self.read.mpp, self.closer.mpp) is None:
            raise ConfigurationError("closer.mpp must be a half of read.mpp, or a third and so on")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def times_finer(mpp: float, finer: float) -> int | None:
    """How many times smaller the pixels of the second spacing are; None where it is no whole number, or more than MOST_TIMES."""
    if not (math.isfinite(mpp) and finer > 0 and mpp / finer < MOST_TIMES + 0.5):
        return None
    times = round(mpp / finer)
    return times if times >= 1 and math.isclose(times * finer, mpp, rel_tol=0.02) else None


def load_config(path: Path) -> DetectorConfig:
    """Raises ConfigurationError for a missing file, bad TOML, an unknown key or a value of the wrong type."""
    return _beside(config_from_dict(read_toml(path)), path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """Raises ConfigurationError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigurationError(f"cannot read {path}: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{path} is not TOML: {problem}") from problem


def _beside(config: DetectorConfig, folder: Path) -> DetectorConfig:
    """Relative paths of slides mean: beside the configuration file."""
    splits = config.data.slide_splits
    data = dataclasses.replace(
        config.data,
        slides=tuple(str((folder / entry).resolve()) for entry in config.data.slides),
        slide_splits=str((folder / splits).resolve()) if splits else "",
    )
    start = config.train.start_from
    start = str((folder / start).resolve()) if start and start != SHIPPED else start
    teachers = tuple(str((folder / entry).resolve()) for entry in config.train.teachers)
    train = dataclasses.replace(config.train, start_from=start, teachers=teachers)
    return dataclasses.replace(config, data=data, train=train)


def config_from_dict(raw: dict[str, Any]) -> DetectorConfig:
    """Raises ConfigurationError."""
    return typing.cast(DetectorConfig, _build(DetectorConfig, raw, prefix=""))


def config_of_card(raw: dict[str, Any]) -> DetectorConfig:
    """The configuration that a model version carries; keys that mean nothing any more are passed over. Raises ConfigurationError."""
    kept = {
        name: {k: v for k, v in part.items() if k not in RETIRED.get(name, ())} if isinstance(part, dict) else part
        for name, part in raw.items()
    }
    for name, values in BEFORE.items():
        kept[name] = {**values, **kept.get(name, {})} if isinstance(kept.get(name, {}), dict) else kept[name]
    return config_from_dict(kept)


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
