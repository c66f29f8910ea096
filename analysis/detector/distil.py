"""A small scan network for a model version: `python -m analysis.detector.distil MODEL --out FOLDER --version NAME`.

Training makes one by itself where its configuration asks for it (`scan.steps`); this is for versions that were trained
before, or for another size. The weights that read stay as they are, and what patches say of them; but both profiles ask the
scan, so that all that was fitted to or measured on slides is left out of the card: evaluate and calibrate anew.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.detector.configuration import ConfigurationError
from analysis.detector.training import scan_network
from analysis.detector.training.material import load_material
from analysis.detector.version_command import make_version, parser_of
from analysis.detector.weights import LoadedModel, save_model

STEPS = 1500
FITTED_TO_SLIDES = ("calibration", "drift_reference", "suspicion", "threshold")


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
    taught = dataclasses.replace(model, config=config)
    try:
        scanner, said = scan_network.learn(taught, material, seed=config.train.seed, say=say)
    finally:
        material.close()
    state = dict(model.network.state_dict())
    card = {**without_slides(model.card), "scan": said}
    beside = {**model.beside, "scanner": scanner}
    return save_model(folder, state=state, config=config, version=version, card=card, int8=model.int8, **beside)


def without_slides(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card without what reading slides has put into it."""
    kept = {key: value for key, value in card.items() if key not in FITTED_TO_SLIDES}
    kept["evaluation"] = {k: v for k, v in card.get("evaluation", {}).items() if not k.startswith("slides")}
    return kept


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("distil", __doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    return make_version(
        parser,
        arguments,
        lambda model, options: with_scanner(
            model,
            options.out,
            version=options.version,
            steps=options.steps,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
