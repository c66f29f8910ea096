"""A small scan network for a model version: `python -m analysis.detector.distil MODEL --out FOLDER --version NAME`.

Training makes one by itself where its configuration asks for it (`scan.steps`); this is for versions that were trained
before, or for another size. The weights that read stay as they are; what `standard` was calibrated on still holds, and
what was measured of `fast` is left out of the card: calibrate it anew.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.detector.card import ModelRefused, default_model_folder, read_card
from analysis.detector.configuration import ConfigurationError
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reference_data import ReferenceDataMissing
from analysis.detector.training import scan_network
from analysis.detector.training.material import load_material
from analysis.detector.weights import LoadedModel, load_model, save_model, write_card

STEPS = 1500


def with_scanner(model: LoadedModel, folder: Path, *, version: str, steps: int, say: Any = print) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights.

    Raises ConfigurationError for a version trained on slides, and what loading its training material raises.
    """
    config = dataclasses.replace(model.config, scan=dataclasses.replace(model.config.scan, steps=steps))
    material = load_material(config, rng=np.random.default_rng(config.train.seed + 1))
    if not len(material.positive) + len(material.negative):
        raise ConfigurationError(
            f"{model.version} names no patches: the slides it was trained on are not kept in its card; train it again "
            "with scan.steps in its configuration"
        )
    torch.manual_seed(config.train.seed)
    taught = dataclasses.replace(model, config=config)
    try:
        scanner, said = scan_network.learn(taught, material, np.random.default_rng(config.train.seed), say=say)
    finally:
        material.close()
    state = dict(model.network.state_dict())
    sha256 = save_model(folder, state=state, config=config, version=version, card={}, int8=model.int8, scanner=scanner)
    content = read_card(folder)
    content["card"] = {**without_fast(model.card, sha256=sha256), "scan": said}
    write_card(folder, content)
    return sha256


def without_fast(card: Mapping[str, Any], *, sha256: str) -> dict[str, Any]:
    """The card without what depends on the scan. `sha256`: of the new weights file, in which the reading's are as before."""
    kept = {key: value for key, value in card.items() if key != "suspicion"}
    for key in ("calibration", "drift_reference"):
        kept[key] = {profile: one for profile, one in card.get(key, {}).items() if profile == "standard"}
    kept["calibration"] = {name: {**one, "weights_sha256": sha256} for name, one in kept["calibration"].items()}
    kept["evaluation"] = {name: one for name, one in card.get("evaluation", {}).items() if name != "slides_fast"}
    return kept


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.detector.distil", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="(default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--version", required=True, metavar="NAME")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        model = load_model(options.model or default_model_folder())
        sha256 = with_scanner(
            model,
            options.out,
            version=options.version,
            steps=options.steps,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except (ModelRefused, ConfigurationError, PatchFileError, ReferenceDataMissing, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps({"written": str(options.out), "version": options.version, "sha256": sha256}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
