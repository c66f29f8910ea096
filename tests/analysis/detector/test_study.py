"""Plans of many short trainings: what they ask for, what they leave behind, how they go on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.detector.card import read_card
from analysis.detector.configuration import ConfigurationError, config_from_dict
from analysis.detector.network.detector import Detector
from analysis.detector.patch_file import load_patches
from analysis.detector.study import DEFAULT_PLAN, Together, carry_out, collect, main, read_plan, summary, table
from analysis.detector.train import Trainer
from analysis.detector.training.material import load_material
from analysis.detector.training.region_scores import judge_regions
from analysis.detector.training.regions import Region
from analysis.detector.weights import save_model
from analysis.metrics.roc import auc
from tests.analysis.detector.test_patch_file import write_patches

PLAN = """
[base.train]
pretrained = false
patch_batch = 2
regions_every = 0
coarse_share = 0.0
[base.data]
fraction = 0.01
folder = "{folder}"
[study.tiny]
seeds = [3, 4]
steps = 2
variant.plain.network.attention = "none"
variant.long.steps = 3
"""


@pytest.fixture
def plan(tmp_path: Path, reference_data: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(folder=reference_data))
    return path


def test_a_plan_gives_each_variant_with_each_seed(plan: Path) -> None:
    runs = read_plan(plan).runs
    assert [(r.variant, r.seed, r.steps) for r in runs] == [
        ("plain", 3, 2),
        ("plain", 4, 2),
        ("long", 3, 3),
        ("long", 4, 3),
    ]
    assert runs[0].config.network.attention == "none"
    assert runs[2].config.network.attention == "both"
    assert {r.config.train.seed for r in runs} == {3, 4}


def test_the_shipped_plan_names_no_unknown_key_and_no_run_twice() -> None:
    names = [run.name for run in read_plan(DEFAULT_PLAN).runs]
    assert len(names) == len(set(names)) > 30


@pytest.mark.parametrize(
    "text",
    [
        "[study.x]\nvariant.a.train.epoch = 3",
        "[studies.x]",
        "[study.x]\nseeds = [1]",
        "=",
        "[study.x]\nvariant.a.steps = 1\ntogether.both = ['a', 'b']",
        "[study.x]\nvariant.a.steps = 1\ntogether.b = ['a']",
        "[study.x]\nvariant.a.steps = 1\nvariant.b.steps = 1\ntogether.b = ['a', 'b']",
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        read_plan(path)


def test_a_run_leaves_its_figures_and_is_not_done_again(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    out.mkdir()
    run = read_plan(plan).runs[0]
    result = carry_out(run, folder=out)
    assert result["test"]["n"] == 536
    assert 0 <= result["test"]["auc"] <= 1
    assert result["counts"]["train_tumour"] < 12
    rates = result["hard_negatives"]
    assert 0 <= rates["false_positive_rate"] <= 1
    assert 0 <= rates["false_positive_rate_compressed_alike"] <= 1
    stored = out / f"{run.name}.json"
    assert json.loads(stored.read_text()) == json.loads(json.dumps(result))
    stored.write_text(json.dumps({**result, "test": {**result["test"], "auc": 0.25}}))
    for other in read_plan(plan).runs[1:]:
        (out / f"{other.name}.json").write_text(json.dumps({**result, "variant": other.variant, "seed": other.seed}))
    assert main([str(plan), "--out", str(out)]) == 0
    assert json.loads(stored.read_text())["test"]["auc"] == 0.25
    assert "tiny | plain | 2" in capsys.readouterr().out


def test_a_summary_gives_mean_and_range_over_the_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 0.9), (2, 0.8), (3, 0.85)):
        content = {"study": "s", "variant": "v", "seed": seed, "steps": 5, "test": {"auc": value}}
        (tmp_path / f"s-v-seed{seed}.json").write_text(json.dumps(content))
    rows = summary(collect(tmp_path))
    assert rows == [
        {"study": "s", "variant": "v", "seeds": 3, "steps": 5, "auc": {"mean": 0.85, "low": 0.8, "high": 0.9}}
    ]
    assert table(rows)[-1] == "| s | v | 3 | 5 | 0.85 (0.8 to 0.9) |"


def test_regions_without_a_found_lesion_have_no_overlap(plan: Path) -> None:
    network = Detector(read_plan(plan).runs[0].config.network).eval()
    instance = np.zeros((128, 128), np.int16)
    instance[40:80, 40:80] = 1
    instance[100:128, 100:128] = 2  # touches the edge: no whole box
    region = Region(rgb=np.full((128, 128, 3), 200, np.uint8), instance=instance, ignore=np.zeros((128, 128), bool))
    found = judge_regions(network, [region])
    assert found["lesions"] == 1
    assert 0 <= found["box_iou"] < 0.5
    assert found["dice"] is not None
    without_boxes = Detector(dataclasses.replace(network.config, heads="mask")).eval()
    assert judge_regions(without_boxes, [region])["box_iou"] is None


def test_an_unknown_study_is_named(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(plan), "--out", str(tmp_path / "o"), "--only", "nothing"]) == 2
    assert "tiny" in capsys.readouterr().err


def test_a_training_on_one_scanner_is_judged_on_the_other(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=60, stain=np.array(["brown"] * 40 + ["purple"] * 20))
    plan = tmp_path / "plan.toml"
    base = PLAN.format(folder=tmp_path).partition("[study.tiny]")[0].replace("fraction = 0.01", 'train_stain = "brown"')
    files = 'patches = ["p.npz"]\nhard_negatives = []\n'
    plan.write_text(f'{base}{files}[study.scanner]\nsteps = 1\nvariant.green.network.colours = "green"\n')
    (run,) = read_plan(plan).runs
    result = carry_out(run, folder=tmp_path)
    patches = load_patches(tmp_path / "p.npz")
    other = patches.where((patches.stain == "purple") & (patches.label >= 0))
    found = result["other_scanner"]
    assert found["n"] == len(other) > 0
    assert found["test_fold"]["n"] == found["test_fold_eight_ways"]["n"] == (other.fold == 4).sum() > 0
    assert list(found["auc_by_stain"]) == ["purple"]


def test_it_is_judged_again_when_it_has_got_used_to_the_other_scanner_and_by_all_seeds_together(
    tmp_path: Path,
) -> None:
    write_patches(tmp_path / "p.npz", n=400, stain=np.array(["brown"] * 60 + ["purple"] * 340))
    plan = tmp_path / "plan.toml"
    base = PLAN.format(folder=tmp_path).partition("[study.tiny]")[0].replace("fraction = 0.01", 'train_stain = "brown"')
    files = 'patches = ["p.npz"]\nhard_negatives = []\n'
    plan.write_text(f"{base}{files}[study.scanner]\nseeds = [1, 2]\nsteps = 1\nvariant.plain.train.mixup = 0.0\n")
    results = [carry_out(run, folder=tmp_path) for run in read_plan(plan).runs]
    patches = load_patches(tmp_path / "p.npz")
    others = patches.where(patches.stain == "purple")
    test = others.where((others.fold == 4) & (others.label >= 0))
    for result in results:
        found = result["other_scanner"]["adapted"]
        assert found["unlabelled"] == (others.fold != 4).sum() >= 192
        assert found["test_fold_eight_ways"]["n"] == len(found["log_odds"]) == len(test)
        assert found["test_fold_eight_ways"]["auc"] == pytest.approx(auc(found["tumour"], found["log_odds"]), abs=0.01)
        assert found["tumour"] == test.label.tolist()
    assert results[0]["other_scanner"]["adapted"]["log_odds"] != results[1]["other_scanner"]["adapted"]["log_odds"]
    odds = [result["other_scanner"]["adapted"]["log_odds"] for result in results]
    (row,) = summary(collect(tmp_path))
    assert row["other_scanner_together"]["mean"] == pytest.approx(auc(test.label, np.sum(odds, axis=0)), abs=1e-4)
    assert row["other_scanner_together"]["low"] < row["other_scanner_together"]["mean"]
    assert "other scanner together" in "\n".join(table([row]))


def _found(variant: str, seed: int, odds: list[float], tumour: tuple[int, ...] = (0, 0, 0, 1, 1)) -> dict[str, Any]:
    adapted = {"log_odds": odds, "tumour": list(tumour)}
    return {"study": "s", "variant": variant, "seed": seed, "steps": 5, "other_scanner": {"adapted": adapted}}


def test_variants_are_judged_together_seed_by_seed() -> None:
    results = [
        _found("a", 1, [0, 3, 0, 2, 2]),  # 4 of 6 pairs of normal and tumour in order
        _found("b", 1, [3, 0, 0, 2, 2]),  # 4 of 6, on other patches
        _found("a", 2, [0, 0, 3, 2, 2]),
        _found("b", 2, [0, 0, 5, 2, 2]),
        _found("a", 3, [9, 9, 9, 0, 0]),  # b has no third seed
    ]
    rows = summary(results, [Together("s", "both", ("a", "b"))])
    assert [row["variant"] for row in rows] == ["a", "b", "both"]
    both = rows[-1]
    assert (both["seeds"], both["steps"]) == (2, 10)
    assert both["other_scanner_adapted"] == {"mean": 0.8333, "low": 0.66667, "high": 1.0}
    # the sums are 3, 3, 8, 8, 8: four pairs in order, and two with equals
    assert both["other_scanner_together"]["mean"] == pytest.approx(5 / 6, abs=1e-4)


def test_nothing_is_judged_together_where_a_variant_is_missing_or_there_is_one_class_alone() -> None:
    both = [Together("s", "both", ("a", "b"))]
    assert [row["variant"] for row in summary([_found("a", 1, [0, 0, 0, 1, 1])], both)] == ["a"]
    normal = (0, 0, 0, 0, 0)
    rows = summary([_found(v, seed, [0, 1, 0, 1, 1], normal) for v in "ab" for seed in (1, 2)], both)
    assert [row["variant"] for row in rows] == ["a", "b"]
    assert not any("other_scanner_together" in row for row in rows)


def test_variants_that_saw_different_patches_are_not_judged_together() -> None:
    results = [_found("a", 1, [0, 0, 0, 1, 1]), _found("b", 1, [0, 1, 0, 1], (0, 1, 0, 1))]
    with pytest.raises(ConfigurationError, match="a, b were not judged on the same patches"):
        summary(results, [Together("s", "both", ("a", "b"))])


def test_a_training_on_green_alone_leaves_a_network_that_sees_nothing_else(tmp_path: Path) -> None:
    write_patches(tmp_path / "p.npz", n=60)
    config = config_from_dict(
        {
            "network": {"colours": "green"},
            "data": {"patches": ["p.npz"], "hard_negatives": [], "folder": str(tmp_path)},
            "train": {"pretrained": False, "patch_batch": 2, "regions_every": 0, "warmup_steps": 1},
        }
    )
    trainer = Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)
    before = trainer.network.backbone.stem[0].weight.detach().clone()
    trainer.step()
    after = trainer.network.backbone.stem[0].weight
    assert (after[:, 1] != before[:, 1]).any()
    assert not after[:, [0, 2]].any()
    assert not trainer.average["backbone.stem.0.weight"][:, [0, 2]].any()


def test_a_record_keeps_the_studies_that_were_not_carried_out_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "s-v-seed1.json").write_text(
        json.dumps({"study": "s", "variant": "v", "seed": 1, "steps": 5, "test": {"auc": 0.9}})
    )
    config = config_from_dict({"network": {"heads": "mask"}})
    network = Detector(config.network)
    before = [
        {"study": "s", "variant": "old", "seeds": 1, "steps": 5},
        {"study": "t", "variant": "w", "seeds": 3, "steps": 9},
    ]
    model = tmp_path / "model"
    save_model(model, state=dict(network.state_dict()), config=config, version="v1", card={"studies": before})
    plan = tmp_path / "plan.toml"
    plan.write_text("[study.s]\nvariant.v.train.epochs = 1\n")
    assert main([str(plan), "--out", str(results), "--report", "--record", str(model)]) == 0
    kept = read_card(model)["card"]["studies"]
    assert [(row["study"], row["variant"]) for row in kept] == [("s", "v"), ("t", "w")]
