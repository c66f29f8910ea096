"""Saving and loading a model version: safetensors and JSON, checked by SHA-256. Nothing pickled is ever loaded."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.detector.card import CARD_NAME, FORMAT, WEIGHTS_NAME, ModelRefused, file_sha256, read_card, verify_weights
from analysis.detector.configuration import ConfigurationError, DetectorConfig, NetworkConfig, config_of_card
from analysis.detector.network import eight_bit
from analysis.detector.network.detector import TOWER_PARTS, Detector

__all__ = ["LoadedModel", "ModelRefused", "load_model", "read_card", "save_model"]

SCAN_PREFIX = "scan."
"""Of the scan network's tensors in a weights file."""
LOOK_PREFIX = "look."
"""Of those of the network for the second look."""
CLOSER_PREFIX = "closer."
"""Of those of the network that looks closer."""
Beside = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""The state of a network stored beside the one that reads, and its 8-bit ranges."""


@dataclass(frozen=True)
class LoadedModel:
    version: str
    sha256: str
    network: Detector
    """In evaluation mode, channels last, parameters frozen."""
    config: DetectorConfig
    card: dict[str, Any]
    int8: dict[str, Tensor] = field(default_factory=dict)
    """What `network.eight_bit.measure` found; empty: to be read in floats alone."""
    scanner: "LoadedModel | None" = None
    """The small network that scans for `fast` (`training/scan_network.py`), as a model of its own; None: `network` scans."""
    looker: "LoadedModel | None" = None
    """Another network that looks again at the candidates (`look.py`), as a model of its own; None: `network` alone does."""
    closer: "LoadedModel | None" = None
    """A network that looks at them closer, at a finer spacing (`look.py`), as a model of its own, if there is one."""

    @property
    def reads_by(self) -> dict[str, Any]:
        """Which networks of which weights: the digest is that of a file, which may hold several, and not all of it may be used."""
        networks = {"network": self, "scanner": self.scanner, "looker": self.looker, "closer": self.closer}
        used = {
            name: None if model is None else dataclasses.asdict(model.config.network)
            for name, model in networks.items()
        }
        return {"weights": self.sha256, **used, "looks_alone": self.config.look.alone}

    @property
    def beside(self) -> dict[str, Beside | None]:
        """What `save_model` takes to store the same networks beside another one."""
        return {
            name: None if model is None else (model.network.state_dict(), model.int8)
            for name, model in (("scanner", self.scanner), ("looker", self.looker), ("closer", self.closer))
        }


def save_model(
    folder: Path,
    *,
    state: dict[str, Tensor],
    config: DetectorConfig,
    version: str,
    card: dict[str, Any],
    int8: dict[str, Tensor] | None = None,
    scanner: Beside | None = None,
    looker: Beside | None = None,
    closer: Beside | None = None,
) -> str:
    """Write weights (with the 8-bit ranges and the networks beside, if any) and card, each whole or not at all; returns
    the weights' SHA-256. The file names the way of reading, too: an installation knows a version by this digest, and the same
    weights may be read by other rules."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(state, int8 or {})
    for prefix, beside in ((SCAN_PREFIX, scanner), (LOOK_PREFIX, looker), (CLOSER_PREFIX, closer)):
        if beside is not None:
            tensors |= {prefix + name: value for name, value in _tensors(*beside).items()}
    unfinished = folder / (WEIGHTS_NAME + ".part")
    save_file(tensors, unfinished, metadata={"reading": _reading_of(config)})
    unfinished.chmod(0o644)  # safetensors makes it readable by its owner alone
    os.replace(unfinished, folder / WEIGHTS_NAME)
    sha256 = file_sha256(folder / WEIGHTS_NAME)
    content = {"format": FORMAT, "version": version, "sha256": sha256, "config": config.to_json(), "card": card}
    write_card(folder, content)
    return sha256


def _reading_of(config: DetectorConfig) -> str:
    """SHA-256 of the rules of reading and of looking again."""
    rules = {table: content for table, content in config.to_json().items() if table in ("read", "look", "closer")}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _tensors(state: Mapping[str, Tensor], int8: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {k: _as_small(v.detach()) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    return tensors | {eight_bit.PREFIX + name: value.contiguous() for name, value in int8.items()}


def _as_small(value: Tensor) -> Tensor:
    """A copy; in half precision where that holds every number of it exactly."""
    half = value.half()
    return (half if torch.equal(half.to(value.dtype), value) else value).contiguous().clone()


def write_card(folder: Path, content: dict[str, Any]) -> None:
    unfinished = folder / (CARD_NAME + ".part")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / CARD_NAME)


def load_model(folder: Path) -> LoadedModel:
    """Raises ModelRefused when the card or the weights are missing, altered, or do not fit the network they name."""
    content = verify_weights(folder)
    try:
        config = config_of_card(content["config"])
        stored, of_scan = _parted(load_file(folder / WEIGHTS_NAME), SCAN_PREFIX)
        stored, of_look = _parted(stored, LOOK_PREFIX)
        stored, of_closer = _parted(stored, CLOSER_PREFIX)
        network, int8 = _network_of(stored, config.network)
        model = LoadedModel(
            version=str(content["version"]),
            sha256=str(content["sha256"]),
            network=network,
            config=config,
            card=content["card"],
            int8=int8,
        )
        scanner = _beside(model, of_scan, config.scan.network)
        looker = _beside(model, of_look, config.look.network)
        closer = _beside(model, of_closer, config.closer.network)
    except (ConfigurationError, SafetensorError, RuntimeError, TypeError, eight_bit.RangesDoNotFit) as problem:
        raise ModelRefused(f"{folder.name}: the weights do not fit the network of the card ({problem})") from problem
    return dataclasses.replace(model, scanner=scanner, looker=looker, closer=closer)


def _beside(model: LoadedModel, stored: Mapping[str, Tensor], network: NetworkConfig) -> LoadedModel | None:
    if not stored:
        return None
    train = dataclasses.replace(model.config.train, pretrained=False)
    config = dataclasses.replace(model.config, network=network, train=train)
    built, int8 = _network_of(stored, network)
    return dataclasses.replace(model, network=built, config=config, int8=int8)


def _parted(tensors: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those without the prefix, and those with it, by the rest of their names."""
    return (
        {name: value for name, value in tensors.items() if not name.startswith(prefix)},
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
    )


def _network_of(stored: Mapping[str, Tensor], config: NetworkConfig) -> tuple[Detector, dict[str, Tensor]]:
    """Raises RuntimeError and RangesDoNotFit where the tensors are not of this network."""
    if config.heads == "mask":  # versions of before carried towers that nothing asked
        stored = {k: v for k, v in stored.items() if not k.removeprefix(eight_bit.PREFIX).startswith(TOWER_PARTS)}
    state, int8 = _parted(stored, eight_bit.PREFIX)
    network = Detector(config)
    left_out = network.load_state_dict(state, strict=False)
    missing = [k for k in left_out.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or left_out.unexpected_keys:
        raise RuntimeError(f"it has {len(missing)} tensors less and {len(left_out.unexpected_keys)} more")
    if int8:
        eight_bit.check(network, int8)
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, int8
