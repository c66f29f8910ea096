from analysis.card_figures import Figure, figures_of


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
