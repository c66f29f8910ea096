"""Let a leaner network read: `python -m analysis.detector.slim MODEL --out FOLDER --version NAME [--steps 1800] [--start MODEL]`.

It is taught, without labels, to say what the network says that read until now, and with it the one that looks again, if there
is one (`training/lean_network.py`), for half of the time. That network does not go: where no other looks again at the
candidates yet (`look.py`), it does. What was fitted to or measured on slides is left out of the card, and so is what patches
said of the network before: evaluate and calibrate anew.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.detector.configuration import ConfigurationError, LookConfig, ReadConfig
from analysis.detector.distil import without_slides
from analysis.detector.training import lean_network
from analysis.detector.training.eight_bits import judge_eight_bits
from analysis.detector.training.test_fold import score_test_fold
from analysis.detector.training.validation import validation_figures, worth
from analysis.detector.version_command import make_taught_version, training_material
from analysis.detector.weights import LoadedModel, save_model

STEPS, FIELDS = 1800, 3000
SEED, CANDIDATE = 0.5, 0.65
"""Of the reading (`ReadConfig`), at most: a mean of eight is lower than the strongest of them. On 60 composed validation slides
all but one of 46 metastases reach 0.65 and 131 false finds do; of the network before, 53 of 56 and 356 reached 0.75."""


def with_lean_reader(
    model: LoadedModel,
    folder: Path,
    *,
    version: str,
    steps: int,
    fields: int = FIELDS,
    start: LoadedModel | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights. `fields`: of training tissue, at most.
    `start`: a version whose lean network is taught further.

    Raises ConfigurationError for a version trained on slides and for a `start` that does not read with a lean network, and
    what loading the training material raises.
    """
    wanted = lean_network.lean_network(model.config.network)
    if start is not None and start.network.config != wanted:
        raise ConfigurationError(f"--start: {start.version} does not read with the lean network of {model.version}")
    if model.scanner is None:
        say(
            f"{version} will have no network that scans, and a lean one cannot: for `fast` run analysis.detector.distil on it"
        )
    with training_material(model) as material:
        network, (state, ranges), said = lean_network.learn(
            dataclasses.replace(model, scanner=None),
            material,
            steps=steps,
            most_fields=fields,
            seed=model.config.train.seed,
            start=start.network if start else None,
            say=say,
        )
        train = dataclasses.replace(model.config.train, pretrained=False)
        look = dataclasses.replace(model.config.look, alone=True)
        beside, card = model.beside, _card_of(model)
        if model.looker is None:
            look = LookConfig(model.version, model.config.network, alone=True)
            card["look"] = {"version": model.version, "sha256": model.sha256}
            beside["looker"] = (model.network.state_dict(), model.int8)
        config = dataclasses.replace(
            model.config, network=network.config, train=train, look=look, read=_lower_limits(model.config.read)
        )
        int8, card["int8"] = judge_eight_bits(
            network, dict(ranges), value_of=lambda each: worth(validation_figures(each, material, config))
        )
        card["validation"] = {"auc": card["int8"]["validation"]["float"]}
        card["test"] = score_test_fold(network, int8, material, config)
        card["lean"] = {**said, "teacher": {"version": model.version, "sha256": model.sha256}}
    return save_model(folder, state=dict(state), config=config, version=version, card=card, int8=int8, **beside)


def _lower_limits(read: ReadConfig) -> ReadConfig:
    return dataclasses.replace(
        read,
        seed_probability=min(read.seed_probability, SEED),
        grow_probability=min(read.grow_probability, SEED),
        candidate_score=min(read.candidate_score, CANDIDATE),
        glance_score=min(read.candidate_score, CANDIDATE),  # the same network: what it says at a glance it says again
    )


def _card_of(model: LoadedModel) -> dict[str, Any]:
    """What stays true of a version that reads with another network: the material, how its teacher was trained, studies."""
    card = without_slides(model.card)
    card["evaluation"] = {}
    return card


def main(arguments: list[str] | None = None) -> int:
    others = {"start": "folder of a version whose lean network goes on learning"}
    return make_taught_version("slim", __doc__.splitlines()[0], arguments, with_lean_reader, steps=STEPS, others=others)


if __name__ == "__main__":
    sys.exit(main())
