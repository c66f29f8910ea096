"""Let the same weights be read by other rules: `python -m analysis.detector.rules MODEL --set KEY=VALUE ... --out FOLDER --version NAME`.

The keys are those of the table `read` of a configuration (`ReadConfig`). It is another version: what a slide is said to hold
depends on the rules as on the weights. What was fitted to slides or measured on them is left out of its card, so calibrate and
evaluate anew; what was measured on patches, which are read by no such rules, stays.
"""

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.detector.configuration import ConfigurationError, config_from_dict
from analysis.detector.distil import without_slides
from analysis.detector.version_command import make_version, parser_of
from analysis.detector.weights import LoadedModel, save_model


def with_rules(model: LoadedModel, rules: Mapping[str, Any], folder: Path, *, version: str) -> str:
    """Write the new version into `folder`; returns the SHA-256 of its weights. Raises ConfigurationError for a key or a value
    that `read` does not know."""
    raw = model.config.to_json()
    config = config_from_dict({**raw, "read": {**raw["read"], **rules}})
    return save_model(
        folder,
        state=dict(model.network.state_dict()),
        config=config,
        version=version,
        card=without_slides(model.card),
        int8=model.int8,
        **model.beside,
    )


def rules_of(settings: Sequence[str]) -> dict[str, Any]:
    """Of KEY=VALUE each, VALUE as in a configuration file. Raises ConfigurationError."""
    rules: dict[str, Any] = {}
    for setting in settings:
        try:
            rules |= tomllib.loads(setting)
        except tomllib.TOMLDecodeError as problem:
            raise ConfigurationError(
                f"--set {setting}: write KEY=VALUE as in a configuration file ({problem})"
            ) from problem
    return rules


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("rules", __doc__.splitlines()[0])
    parser.add_argument(
        "--set", action="append", required=True, metavar="KEY=VALUE", help="a rule of reading, and what it is to be"
    )
    return make_version(
        parser,
        arguments,
        lambda model, options: with_rules(model, rules_of(options.set), options.out, version=options.version),
    )


if __name__ == "__main__":
    sys.exit(main())
