"""Commands that make another version of a model: the same arguments, refusals and answer for all of them."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.configuration import ConfigurationError
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reference_data import ReferenceDataMissing
from analysis.detector.training.material import Material, load_material
from analysis.detector.weights import LoadedModel, load_model


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m analysis.detector.{name}", description=description)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="(default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--version", required=True, metavar="NAME")
    return parser


def make_version(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    make: Callable[[LoadedModel, argparse.Namespace], str],
) -> int:
    """`make` writes the version into `options.out` and returns the SHA-256 of its weights. Returns the exit status."""
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        sha256 = make(load_model(options.model or default_model_folder()), options)
    except (ModelRefused, ConfigurationError, PatchFileError, ReferenceDataMissing, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps({"written": str(options.out), "version": options.version, "sha256": sha256}))
    return 0


# -- versions with a network that was taught -----------------------------------------------------------------------------


def make_taught_version(
    name: str,
    description: str,
    arguments: Sequence[str] | None,
    make: Callable[..., str],
    *,
    steps: int,
    others: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """As `make_version`, with `--steps` (so many where it is not given). `others`: further options that name the folder of a
    version, with their help.

    `make(model, folder, version=, steps=, say=)` writes the version into `folder` and returns the SHA-256 of its weights; `say`
    is told how far it is. Of `others` it is given each by its name: the version, or None.
    """
    parser = parser_of(name, description)
    parser.add_argument("--steps", type=int, default=steps)
    for option, help_of in others.items():
        parser.add_argument(f"--{option}", type=Path, metavar="MODEL", help=help_of)

    def taught(model: LoadedModel, options: argparse.Namespace) -> str:
        given = {option: load_model(folder) if (folder := getattr(options, option)) else None for option in others}
        return make(model, options.out, version=options.version, steps=options.steps, say=_say_to_stderr, **given)

    return make_version(parser, arguments, taught)


def _say_to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def training_material(model: LoadedModel) -> Iterator[Material]:
    """What the version was trained on, as far as its card names it.

    Raises ConfigurationError for a version trained on slides, and what loading the material raises.
    """
    material = load_material(model.config, rng=np.random.default_rng(model.config.train.seed + 1))
    try:
        if not material.patch_kinds:
            raise ConfigurationError(
                f"{model.version} names no patches: the slides it was trained on are not kept in its card, and without "
                "them there is nothing to teach from (a training with scan.steps in its configuration teaches by itself)"
            )
        yield material
    finally:
        material.close()
