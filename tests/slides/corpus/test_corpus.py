"""Every bad slide of the corpus gets what its recipe says: ready with its faults marked, or refused for the right reason."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from slides.wsi import sandbox

from .judge import judge
from .recipe import FOLDER, Recipe, all_recipes
from .warm_child import started_warm

FAST = [recipe for recipe in all_recipes() if recipe.fast]
COLD = FAST[::40]
"""Of the fast ones, these start an interpreter of their own for the child, as the product does."""


def _named(recipes: list[Recipe]) -> list[object]:
    return [pytest.param(recipe, id=recipe.name) for recipe in recipes]


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    with started_warm(sandbox):
        yield


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Path | None:
    """Only asked for by recipes of reference files: they skip without it."""
    recipe = request.getfixturevalue("recipe")
    return request.getfixturevalue("reference_slides") if recipe.base.startswith("ref:") else None


@pytest.mark.parametrize("recipe", _named(FAST))
def test_a_bad_slide_gets_what_it_must(recipe: Recipe, reference: Path | None, tmp_path: Path, warm: None) -> None:
    assert judge(recipe, tmp_path, reference) == []


@pytest.mark.parametrize("recipe", _named(COLD))
def test_it_gets_the_same_in_a_fresh_child(recipe: Recipe, reference: Path | None, tmp_path: Path) -> None:
    assert judge(recipe, tmp_path, reference) == []


@pytest.mark.slow
@pytest.mark.parametrize("recipe", _named(list(all_recipes())))
def test_every_bad_slide_gets_what_it_must_in_a_fresh_child(
    recipe: Recipe, reference: Path | None, tmp_path: Path
) -> None:
    assert judge(recipe, tmp_path, reference) == []


def test_the_corpus_is_whole() -> None:
    """A recipe that is lost, or a kind without a fast one, shows."""
    recipes = all_recipes()
    assert len(recipes) >= 400
    assert len(FAST) >= 200
    kinds = Counter(recipe.name.split("/")[0] for recipe in recipes)
    assert kinds.keys() == {recipe.name.split("/")[0] for recipe in FAST}
    assert len({recipe.about for recipe in recipes}) == len(recipes)


def test_every_listed_fault_is_covered() -> None:
    """README.md lists the faults and where those without a recipe are tested."""
    covered = {fault for recipe in all_recipes() for fault in recipe.covers}
    listed = {
        line.split("|")[1].strip()
        for line in (FOLDER.parent / "README.md").read_text("utf-8").splitlines()
        if line.startswith("| ")
    }
    assert covered <= listed
