"""Let another model's network look again, too: `python -m analysis.detector.look MODEL --by OTHER --out FOLDER --version NAME`.

The weights that read stay as they are, and what the training measured of them. Candidates are then looked at again by both
networks, which err in other places. What was fitted or measured since is left out of the card, for it is of all looks: evaluate and
calibrate anew.
"""

import dataclasses
import sys
from pathlib import Path

from analysis.detector.card import ModelRefused
from analysis.detector.configuration import LookConfig
from analysis.detector.distil import without_slides
from analysis.detector.version_command import make_version, parser_of
from analysis.detector.weights import LoadedModel, load_model, save_model


def with_looker(model: LoadedModel, other: LoadedModel, folder: Path, *, version: str) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights.

    Raises ModelRefused where the other model reads at another spacing.
    """
    if other.config.read.mpp != model.config.read.mpp:
        raise ModelRefused(
            f"{other.version} reads at {other.config.read.mpp} um/px and {model.version} at {model.config.read.mpp}: "
            "both must know the same spacing"
        )
    # a network that does not look again itself does not begin to because another comes in the place of the one that does
    look = LookConfig(version=other.version, network=other.config.network, alone=model.config.look.alone)
    config = dataclasses.replace(model.config, look=look)
    card = {**without_slides(model.card), "look": {"version": other.version, "sha256": other.sha256}}
    card.pop("evaluation", None)
    beside = {**model.beside, "looker": (other.network.state_dict(), other.int8)}
    state = dict(model.network.state_dict())
    return save_model(folder, state=state, config=config, version=version, card=card, int8=model.int8, **beside)


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("look", __doc__.splitlines()[0])
    parser.add_argument("--by", type=Path, required=True, metavar="OTHER", help="folder of the other model")
    return make_version(
        parser,
        arguments,
        lambda model, options: with_looker(model, load_model(options.by), options.out, version=options.version),
    )


if __name__ == "__main__":
    sys.exit(main())
