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
    assert {("patches", "AUC"), ("slides, standard (composed)", "slide specificity")} <= named
    assert "composed" in " ".join(figure.measured_on for figure in version.figures)
