"""Let another model's network look again, too: `python -m analysis.detector.look MODEL --by OTHER --out FOLDER --version NAME`.

The weights that read stay as they are, and what the training measured of them. Candidates are then looked at again by both
networks, which err in other places. One that knows a finer spacing looks closer: it sees the same field enlarged, some ways up
(`--ways`), beside the network that looked again until now, if there is one. What was fitted or measured since is left out of
the card, for it is of all looks: evaluate and calibrate anew.
"""

import dataclasses
import sys
from pathlib import Path

from analysis.detector.card import ModelRefused
from analysis.detector.configuration import CloserConfig, LookConfig, times_finer
from analysis.detector.distil import without_slides
from analysis.detector.version_command import make_version, parser_of
from analysis.detector.weights import LoadedModel, load_model, save_model


def with_looker(
    model: LoadedModel, other: LoadedModel, folder: Path, *, version: str, ways: int = CloserConfig.ways
) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights. `ways`: up, in which one that looks closer does.

    Raises ModelRefused where the other model reads at a spacing that is neither that of the model nor a whole part of it,
    ConfigurationError for other `ways` than CloserConfig takes.
    """
    own, others = model.config.read.mpp, other.config.read.mpp
    times = times_finer(own, others)
    if times is None:
        raise ModelRefused(
            f"{other.version} reads at {others} um/px and {model.version} at {own}: it must know the same spacing, "
            "or one that is two or three times finer"
        )
    part = "look" if times == 1 else "closer"
    if times == 1:
        # a network that does not look again itself does not begin to because another comes in the place of the one that does
        look = LookConfig(version=other.version, network=other.config.network, alone=model.config.look.alone)
        config = dataclasses.replace(model.config, look=look)
    else:
        closer = CloserConfig(version=other.version, network=other.config.network, mpp=others, ways=ways)
        config = dataclasses.replace(model.config, closer=closer)
    card = {**without_slides(model.card), part: {"version": other.version, "sha256": other.sha256}}
    card.pop("evaluation", None)
    name = {"look": "looker", "closer": "closer"}[part]
    beside = {**model.beside, name: (other.network.state_dict(), other.int8)}
    state = dict(model.network.state_dict())
    return save_model(folder, state=state, config=config, version=version, card=card, int8=model.int8, **beside)


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("look", __doc__.splitlines()[0])
    parser.add_argument("--by", type=Path, required=True, metavar="OTHER", help="folder of the other model")
    parser.add_argument(
        "--ways",
        type=int,
        default=CloserConfig.ways,
        help="of the eight ways up, how many one that knows a finer spacing looks at (2, 4, 6 or 8)",
    )
    return make_version(
        parser,
        arguments,
        lambda model, options: with_looker(
            model, load_model(options.by), options.out, version=options.version, ways=options.ways
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
