"""One bad slide: what it is made from, what is done to it, and what must come of it.

Recipes are TOML files below recipes/; README.md says how they read.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .bases import BASES
from .mutations import MUTATIONS

FOLDER = Path(__file__).parent / "recipes"
_KEYS = {"about", "covers", "base", "mutation", "expected", "fast"}
_EXPECTED = {
    "state", "code", "words", "scale", "mpp", "size", "downsamples", "tiles", "missing", "corrupt", "picture",
    "associated", "icc", "orientation", "bounds", "some_failed",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """`fast`: one of those that run on every change; the rest run with `-m slow`."""

    name: str
    about: str
    covers: tuple[str, ...]
    base: str
    mutations: tuple[Mapping[str, Any], ...]
    expected: Mapping[str, Any]
    fast: bool = field(default=False)


def load(path: Path) -> Recipe:
    """Raises ValueError for a recipe that says something nobody reads."""
    data = tomllib.loads(path.read_text("utf-8"))
    name = str(path.relative_to(FOLDER).with_suffix(""))
    unknown = (data.keys() - _KEYS) | (data["expected"].keys() - _EXPECTED)
    steps = tuple(data.get("mutation", ()))
    unknown |= {step["do"] for step in steps} - MUTATIONS.keys()
    if not data["base"].startswith("ref:"):
        unknown |= {data["base"]} - BASES.keys()
    if unknown:
        raise ValueError(f"{name}: {', '.join(sorted(unknown))} is not known")
    if data["expected"]["state"] not in ("ready", "quarantined"):
        raise ValueError(f"{name}: a slide cannot be expected {data['expected']['state']!r}")
    return Recipe(
        name, data["about"], tuple(data["covers"]), data["base"], steps, data["expected"], data.get("fast", False)
    )


@cache
def all_recipes() -> tuple[Recipe, ...]:
    return tuple(load(path) for path in sorted(FOLDER.rglob("*.toml")))


def make(recipe: Recipe, folder: Path, reference: Path | None) -> Path:
    """The slide of a recipe, in an empty folder. `reference`: where files named `ref:` lie."""
    if recipe.base.startswith("ref:"):
        assert reference is not None
        original = reference / recipe.base.removeprefix("ref:")
        path = folder / original.name
        if original.is_dir():
            path.mkdir()
            for member in original.iterdir():
                (path / member.name).write_bytes(member.read_bytes())
        else:
            path.write_bytes(original.read_bytes())
    else:
        path = BASES[recipe.base](folder)
    for step in recipe.mutations:
        path = MUTATIONS[step["do"]](path, **{key: value for key, value in step.items() if key != "do"}) or path
    return path
