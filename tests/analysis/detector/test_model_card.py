"""The page of the model card: what was measured is on it, and what was not is not claimed."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from analysis.detector.card import default_model_folder, read_card
from analysis.detector.configuration import CloserConfig, DetectorConfig, LookConfig, NetworkConfig
from analysis.detector.learning_curve import Panel, Point, figure
from analysis.detector.model_card import card_page, curve_of


def row(study: str, variant: str, **figures: float) -> dict[str, Any]:
    spread = {name: {"mean": v, "low": v - 0.01, "high": v + 0.01} for name, v in figures.items()}
    return {"study": study, "variant": variant, "seeds": 3, "steps": 240, **spread}


CURVE = [
    row("patches", "100-percent", auc=0.96),
    row("patches", "1-percent", auc=0.79, auc_2um=0.64),
    row("patches", "30-percent", auc=0.952),
    row("network", "attention-none", dice=0.5),
]


def page(**card: Any) -> str:
    content = read_card(default_model_folder())
    content["card"] = {key: value for key, value in content["card"].items() if key not in ("studies", "calibration")}
    content["card"] |= card
    return card_page(content)


def test_the_curve_runs_from_few_to_many_and_says_where_it_passes_what_was_published() -> None:
    text = page(studies=CURVE)
    assert "passes AUC 0.95 to 0.97" in text
    assert "from 30 % of the patches on" in text
    lines = [line for line in text.splitlines() if "percent |" in line]
    assert [line.split(" percent")[0] for line in lines] == ["| 1", "| 30", "| 100"]
    assert "0.790 (0.780 to 0.800)" in lines[0]
    assert "| attention none | 3 | 240 | 0.500 (0.490 to 0.510) |" in text


def test_a_curve_that_never_gets_there_is_said_to_stay_below() -> None:
    assert "stays below AUC 0.95 to 0.97" in page(studies=CURVE[1:2])


def test_a_model_without_studies_or_calibration_says_so_and_shows_no_figure() -> None:
    text = page()
    assert "learning-curve" not in text
    assert "Not calibrated: scores are no probabilities." in text
    assert curve_of([]) is None
    assert curve_of(CURVE[3:]) is None


def test_another_network_that_looks_again_is_named() -> None:
    content = read_card(default_model_folder())
    content["card"] = {**content["card"], "look": {"version": "taught-8", "sha256": "0" * 64}}
    content["config"] = DetectorConfig(look=LookConfig("taught-8", NetworkConfig(dense_stride=8))).to_json()
    text = card_page(content)
    assert "that of taught-8 (efficientnet-lite0 to stride 16, dense stride 8)" in text
    assert "looks again, too" in text
    content["config"]["look"]["alone"] = True
    assert "looks again: that of taught-8" in card_page(content)
    assert "the first look and of the second one" in card_page(content)
    del content["card"]["look"]
    assert "another network looks again" not in card_page(content)


def test_a_network_that_was_taught_to_read_is_told_from_its_teacher() -> None:
    content = read_card(default_model_folder())
    lean = {
        "steps": 1800,
        "fields": 3000,
        "patches": 6000,
        "turns": 8,
        "teacher": {"version": "lite-9", "sha256": "0" * 64},
    }
    content["card"] = {**content["card"], "lean": lean, "validation": {"auc": 0.9371}}
    text = card_page(content)
    assert "taught by that of lite-9, in 1,800 steps from 3,000 fields and 6,000 patches" in text
    of_the_network, of_the_teacher = text.split("## Training of the network that taught it")
    assert "| validation auc | 0.9371 |" in of_the_network
    assert "validation auc" not in of_the_teacher


def test_what_both_looks_say_of_patches_stands_beside_what_one_says() -> None:
    over = {"mean": 0.9, "goal": "at least 0.975", "reached": False}
    rate = {"mean": 0.1, "goal": "at most 0.12", "reached": True}
    model = {
        "seed": 7,
        "test": {"auc": 0.951, "auc_interval": [0.94, 0.96]},
        "hard_negatives": {"false_positive_rate": 0.301},
        "second_look": {
            "auc": 0.966,
            "auc_interval": [0.955, 0.977],
            "auc_2um": 0.948,
            "auc_2um_interval": [0.931, 0.969],
            "false_positive_rate": 0.101,
        },
    }
    figures = {"auc": over, "hard_negative_rate": rate, "second_look_auc": over, "second_look_hard_negative_rate": rate}
    figures["second_look_auc_2um"] = over
    text = page(evaluation={"patches_by_seed": {"models": [model], "over_models": figures}})
    assert "| AUC at 1.0 um/px | 0.951 [0.940, 0.960] |" in text
    assert "| AUC at 1.0 um/px, of all looks | 0.966 [0.955, 0.977] |" in text
    assert "| AUC of patches as coarse as 2.0 um/px, enlarged, of all looks | 0.948 [0.931, 0.969] |" in text
    assert (
        "| hard negatives called tumour by all looks, at 90 % sensitivity | 0.101 | 0.1 | at most 0.12 | yes |" in text
    )
    assert "| hard negatives called tumour, at 90 % sensitivity | 0.301 |" in text


def test_versions_that_are_judged_side_by_side_are_named_with_their_looks() -> None:
    def judged(seed: int, low: float, looks: list[dict[str, object]]) -> dict[str, object]:
        return {
            "seed": seed,
            "version": f"v{seed}",
            "looks": looks,
            "test": {"auc": low + 0.01, "auc_interval": [low, low + 0.02]},
            "hard_negatives": {},
        }

    once = {"backbone": "efficientnet-lite0", "mpp": 1.0, "ways": 1}
    closer = {"version": "close-31", "backbone": "efficientnet-lite2", "mpp": 0.5, "ways": 2}
    over = {"auc": {"mean": 0.96, "goal": "at least 0.975", "reached": False}}
    models = [
        judged(7, 0.95, [{**once, "version": "v7"}, closer]),
        judged(8, 0.94, [{**once, "version": "v8"}]),
    ]
    text = page(evaluation={"patches_by_seed": {"models": models, "over_models": over}})
    assert "## Against the goals (2 versions)" in text
    assert (
        "- v7: efficientnet-lite0 at 1 um/px, one way up; efficientnet-lite2 of close-31 at 0.5 um/px, 2 ways up."
        in text
    )
    assert "- v8: efficientnet-lite0 at 1 um/px, one way up." in text
    assert "| | v7 | v8 | mean | goal | reached |" in text
    assert "| AUC at 1.0 um/px | 0.960 [0.950, 0.970] | 0.950 [0.940, 0.960] | 0.96 | at least 0.975 | no |" in text


def test_the_figure_is_drawing_in_order_of_value() -> None:
    svg = figure([Panel("AUC", "slides", {"AUC 1.0": [Point(2, 0.7, 0.6, 0.8), Point(40, 0.9, 0.88, 0.91)]})])
    root = ElementTree.fromstring(svg)
    circles = [node for node in root.iter() if node.tag.endswith("circle")]
    (x1, y1), (x2, y2) = ((float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in circles)
    assert x1 < x2, "more slides lie to the right"
    assert y1 > y2, "a higher AUC lies higher"
    with pytest.raises(ValueError, match="no study"):
        figure([Panel("AUC", "slides", {})])


def test_a_network_that_looks_closer_is_named() -> None:
    content = read_card(default_model_folder())
    network = NetworkConfig(backbone="efficientnet-lite2", backbone_stride=32)
    config = DetectorConfig(closer=CloserConfig("close", network, mpp=0.5, ways=4)).to_json()
    content |= {"config": config, "card": {**content["card"], "closer": {"version": "close", "sha256": "0"}}}
    text = card_page(content)
    assert "looks closer at them, enlarged to 0.5 um/px and 4 ways up: with that of close (efficientnet-lite2" in text
    content["card"].pop("closer")
    assert "looks closer" not in card_page(content)
