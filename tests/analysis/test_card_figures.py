import pytest

from analysis.card_figures import Figure, figures_of, in_words
from analysis.detector.card import default_model_folder, read_card
from analysis.models import ModelVersion


def test_nested_figures_become_lines_for_people():
    evaluation = {
        "n": 536,
        "auc": 0.95491,
        "auc_interval": [0.9324, 0.9736],
        "auc_by_stain": {"brown": 0.9},
        "model": {"sha256": "x"},
    }
    assert list(figures_of("patches", evaluation)) == [
        Figure("patches", "n", "536"),
        Figure("patches", "auc", "0.955"),
        Figure("patches", "auc interval", "0.932 to 0.974"),
        Figure("patches", "auc by stain, brown", "0.900"),
    ]


def test_what_stands_in_a_list_has_lines_of_its_own():
    judged = {"version": "lite-1", "sha256": "0" * 64, "test": {"auc": 0.9581}}
    evaluation = {
        "models": [judged, {"test": {"auc": 0.9}}],
        "reached": True,
        "threshold": None,
        "labels": ["negative", "itc", "micro"],
        "confusion": [[19, 1, 0], [0, 0, 0], [0, 2, 1]],
        "stain_confusion": [[1, 0, 0], [0, 2, 0]],
        "lesion_sensitivity": [0.865, 0.72, 0.941],
    }
    assert [(figure.name, figure.value) for figure in figures_of("patches", evaluation)] == [
        ("models, lite-1, test, auc", "0.958"),
        ("models, 2, test, auc", "0.900"),
        ("reached", "yes"),
        ("threshold", "not known"),
        ("confusion, negative called", "19 as negative, 1 as itc"),
        ("confusion, micro called", "2 as itc, 1 as micro"),
        ("stain confusion, 1", "1, 0, 0"),
        ("stain confusion, 2", "0, 2, 0"),
        ("lesion sensitivity", "0.865 (0.720 to 0.941)"),
    ]


@pytest.mark.parametrize(
    ("name", "figures", "words"),
    [
        ("patches", {}, "patches"),
        ("slides_standard", {"composed": True}, "slides, standard (composed)"),
        ("slides_fast", {"composed": False}, "slides, fast"),
        ("patches_by_seed", {}, "patches by seed"),
    ],
)
def test_a_measurement_of_a_card_is_named_in_words(name: str, figures: dict[str, bool], words: str) -> None:
    assert in_words(name, figures) == words


def test_the_shipped_card_shows_few_figures_and_holds_many():
    version = ModelVersion(card=read_card(default_model_folder())["card"])
    assert 10 < len(version.main_figures) <= 40
    assert len(version.figures) > 100
    named = {(figure.measured_on, figure.name) for figure in version.main_figures}
    assert max(len(figure.value) for figure in version.figures) < 60, "a value has its place in a narrow column"
    assert {("patches", "AUC"), ("slides, standard (composed)", "slide specificity")} <= named
    assert "composed" in " ".join(figure.measured_on for figure in version.figures)
