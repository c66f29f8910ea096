"""A small scan network for a model version: `python -m analysis.detector.distil MODEL --out FOLDER --version NAME`.

Training makes one by itself where its configuration asks for it (`scan.steps`); this is for versions that were trained
before, or for another size. The weights that read stay as they are, and what patches say of them; but both profiles ask the
scan, so that all that was fitted to or measured on slides is left out of the card: evaluate and calibrate anew.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analysis.detector.training import scan_network
from analysis.detector.version_command import make_taught_version, training_material
from analysis.detector.weights import LoadedModel, save_model

STEPS = 1500
FITTED_TO_SLIDES = ("calibration", "drift_reference", "suspicion", "threshold")


def with_scanner(
    model: LoadedModel, folder: Path, *, version: str, steps: int, say: Callable[[str], None] = print
) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights.

    Raises ConfigurationError for a version trained on slides, and what loading its training material raises.
    """
    config = dataclasses.replace(model.config, scan=dataclasses.replace(model.config.scan, steps=steps))
    taught = dataclasses.replace(model, config=config)
    with training_material(taught) as material:
        scanner, said = scan_network.learn(taught, material, seed=config.train.seed, say=say)
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
    return make_taught_version("distil", __doc__.splitlines()[0], arguments, with_scanner, steps=STEPS)


if __name__ == "__main__":
    sys.exit(main())
