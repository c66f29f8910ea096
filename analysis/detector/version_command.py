"""Commands that make another version of a model: the same arguments, refusals and answer for all of them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.configuration import ConfigurationError
from analysis.detector.patch_file import PatchFileError
from analysis.detector.reference_data import ReferenceDataMissing
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
