"""Many short trainings under one plan: `python -m analysis.detector.study [PLAN.toml] --out FOLDER [--only STUDY]`.

A plan (plans/studies.toml) names studies: learning curves, training on one scanner, ablations. A study changes some
keys of one base configuration, trains each variant with each seed for a fixed number of steps, takes the last averaged
weights (no choice among checkpoints) and scores them once on the test fold. Each run leaves one JSON file in FOLDER;
runs that are there are not done again, so a study that was killed goes on with the run it was at. What a study names under
`together` is judged by the mean log odds of several variants, as a version is whose networks look one after the other.
`--report` prints the table of what is there and does not train; `--record` puts it into the card of a model version.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.detector.calibration import logit
from analysis.detector.card import ModelRefused, read_card
from analysis.detector.configuration import ConfigurationError, DetectorConfig, config_from_dict, read_toml
from analysis.detector.infer import write_whole
from analysis.detector.network.detector import Detector
from analysis.detector.patch_file import PatchFileError, PatchSet, compressed_alike, load_patches
from analysis.detector.reference_data import ReferenceDataMissing, reference_data_folder
from analysis.detector.train import Trainer
from analysis.detector.training.adapting import FEWEST, adapted
from analysis.detector.training.material import Material, join, load_material, scanned_by, with_scanners
from analysis.detector.training.patch_scores import score_coarse_patches, score_patches, score_turned
from analysis.detector.training.region_scores import judge_regions, test_regions
from analysis.detector.weights import write_card
from analysis.metrics.intervals import Interval
from analysis.metrics.roc import auc, auc_interval, threshold_at_sensitivity

DEFAULT_PLAN = Path(__file__).resolve().parent / "plans" / "studies.toml"
LEVEL0_FILE = "camelyon16_patches_256_l0.npz"
LEVEL0_MPP = 0.243
SENSITIVITY = 0.9
"""The hard negatives' false positive rate is read at the threshold that finds this share of the tumour patches."""


@dataclass(frozen=True)
class Run:
    study: str
    variant: str
    seed: int
    steps: int
    config: DetectorConfig

    @property
    def name(self) -> str:
        return f"{self.study}-{self.variant}-seed{self.seed}"


@dataclass(frozen=True)
class Together:
    """Variants of a study whose word is one, in the mean of their log odds, seed by seed."""

    study: str
    name: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    runs: tuple[Run, ...]
    together: tuple[Together, ...] = ()


def read_plan(path: Path) -> Plan:
    """Every run of the plan, in the order written. Raises ConfigurationError for what is not a plan."""
    raw = read_toml(path)
    unknown = set(raw) - {"base", "study"}
    if unknown or "study" not in raw:
        raise ConfigurationError(f"{path}: a plan has the keys base and study, not {', '.join(sorted(raw))}")
    studies = raw["study"].items()
    return Plan(
        runs=tuple(run for name, study in studies for run in _runs(name, study, raw.get("base", {}))),
        together=tuple(one for name, study in studies for one in _togethers(name, study)),
    )


def _togethers(name: str, study: dict[str, Any]) -> Iterator[Together]:
    for title, variants in study.get("together", {}).items():
        unknown = [one for one in variants if one not in study["variant"]]
        if unknown or len(variants) < 2 or title in study["variant"]:
            raise ConfigurationError(
                f"study.{name}.together.{title}: names two or more variants of this study, and none is called so"
            )
        yield Together(name, title, tuple(variants))


def _runs(name: str, study: dict[str, Any], base: dict[str, Any]) -> Iterator[Run]:
    unknown = set(study) - {"seeds", "steps", "set", "variant", "together"}
    if unknown or not study.get("variant"):
        raise ConfigurationError(f"study.{name}: keys are seeds, steps, set, together and at least one variant")
    for variant, given in study["variant"].items():
        changes = {key: value for key, value in given.items() if key != "steps"}
        steps = int(given.get("steps", study.get("steps", 300)))
        for seed in study.get("seeds", [1]):
            merged: dict[str, Any] = {}
            for part in (base, study.get("set", {}), changes, {"train": {"seed": seed}}):
                merged = _merged(merged, part)
            yield Run(name, variant, int(seed), steps, config_from_dict(merged))


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        out[key] = _merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def carry_out(run: Run, *, folder: Path, cache: Path | None = None) -> dict[str, Any]:
    """Train and score one run; the result is also written to `folder`/NAME.json."""
    torch.set_num_threads(max(1, run.config.train.threads))
    started = time.process_time()
    material = load_material(run.config, rng=np.random.default_rng(run.config.train.seed), cache=cache)
    trainer = Trainer(run.config, material, folder)
    trainer.total_steps = run.steps
    with closing(trainer):
        for _ in range(run.steps):
            trainer.step()
    trained = time.process_time()
    network = trainer.averaged()
    result = {
        "study": run.study,
        "variant": run.variant,
        "seed": run.seed,
        "steps": run.steps,
        "counts": material.counts(),
        "cpu_seconds": {"training": round(trained - started, 1)},
        **judge(network, run.config, material),
        "config": run.config.to_json(),
    }
    result["cpu_seconds"]["scoring"] = round(time.process_time() - trained, 1)
    write_whole(folder / f"{run.name}.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def judge(network: Detector, config: DetectorConfig, material: Material) -> dict[str, Any]:
    """Figures on the test fold: patches at the spacing of the training and at `coarse_mpp`, other scanner, regions. Of the hard
    negatives, most of which were compressed and no tumour patch was, also with all of them compressed alike. Where `data.every_fold` is
    set, the test fold is of the scanners alone that were not trained on."""
    data, mpp = config.data, config.train.mpp
    test, hard = material.test, material.test_hard_negative
    scores = score_patches(network, test.rgb, patch_mpp=data.patch_mpp, mpp=mpp)
    hard_scores = score_patches(network, hard.rgb, patch_mpp=data.patch_mpp, mpp=mpp)
    found: dict[str, Any] = {"mpp": mpp, "test": _figures(test, scores), "hard_negatives": {"n": len(hard)}}
    rate = rate_at_sensitivity(scores[test.label == 1], hard_scores)
    if rate is not None:
        alike = [
            score_patches(network, compressed_alike(some).rgb, patch_mpp=data.patch_mpp, mpp=mpp)
            for some in (test.where(test.label == 1), hard)
        ]
        found["hard_negatives"] |= {
            "false_positive_rate": rate,
            "false_positive_rate_compressed_alike": rate_at_sensitivity(*alike),
        }
    if config.train.coarse_share > 0 and config.train.coarse_mpp != mpp:
        coarse = score_coarse_patches(network, test.rgb, config=config, mpp=mpp)
        found["test_coarse"] = {"mpp": config.train.coarse_mpp, **_figures(test, coarse)}
    folder = reference_data_folder(data.folder)
    if data.train_stain:
        found["other_scanner"] = _other_scanner(network, config, folder)
    if mpp == 1.0 and (folder / LEVEL0_FILE).is_file():
        found["level0_patches"] = level0(network, folder / LEVEL0_FILE)
    if config.train.regions_every:
        found["composed_regions"] = judge_regions(network, test_regions(config, test, hard))
    return found


def rate_at_sensitivity(tumour_scores: Any, hard_scores: Any) -> float | None:
    """Share of the hard negatives at the threshold that finds SENSITIVITY of the tumour patches; None without either."""
    threshold = threshold_at_sensitivity(np.ones(len(tumour_scores), bool), tumour_scores, SENSITIVITY)
    return None if threshold is None or not len(hard_scores) else round(float((hard_scores >= threshold).mean()), 4)


def _figures(patches: PatchSet, scores: Any) -> dict[str, Any]:
    truth = patches.label == 1
    interval = auc_interval(truth, scores)
    return {
        "n": len(patches),
        "positive": int(truth.sum()),
        "auc": None if interval is None else round(interval.value, 5),
        "auc_interval": None if interval is None else [round(interval.low, 5), round(interval.high, 5)],
        "auc_by_stain": {
            str(s): auc(truth[patches.stain == s], scores[patches.stain == s]) for s in np.unique(patches.stain)
        },
    }


def _other_scanner(network: Detector, config: DetectorConfig, folder: Path) -> dict[str, Any]:
    """All labelled patches of the scanners that were not trained on, of every fold; of the test fold alone, at one look and at eight;
    and when the network has got used to what the other folds hold of these scanners, without their labels (`adapting.py`)."""
    data, mpp = config.data, config.train.mpp
    sets = [
        with_scanners(join([load_patches(folder / name) for name in names]), data)
        for names in (data.patches, data.hard_negatives)
        if names
    ]
    patches = sets[0]
    other = patches.where(~scanned_by(patches, data) & (patches.label >= 0))
    scores = score_patches(network, other.rgb, patch_mpp=data.patch_mpp, mpp=mpp)
    in_test_fold = other.fold == data.test_fold
    test = other.where(in_test_fold)
    turned = score_turned(network, test.rgb, patch_mpp=data.patch_mpp, mpp=mpp)
    figures = {
        **_figures(other, scores),
        "test_fold": _figures(test, scores[in_test_fold]),
        "test_fold_eight_ways": _figures(test, turned),
    }
    unlabelled = [some.where(~scanned_by(some, data) & (some.fold != data.test_fold)) for some in sets]
    seen = np.concatenate([compressed_alike(some).rgb for some in unlabelled])
    if len(seen) >= FEWEST:
        own = adapted(network, seen, patch_mpp=data.patch_mpp, mpp=mpp, rng=np.random.default_rng(config.train.seed))
        again = score_turned(own, test.rgb, patch_mpp=data.patch_mpp, mpp=mpp)
        figures["adapted"] = {"unlabelled": len(seen), "test_fold_eight_ways": _figures(test, again)}
        figures["adapted"]["log_odds"] = [round(logit(float(score)), 6) for score in again]
        figures["adapted"]["tumour"] = [int(label) for label in test.label]
    return figures


def level0(network: Detector, file: Path) -> dict[str, Any]:
    """CAMELYON16 patches cut at level 0, read at 1 um/px, for each slide. None of them is trained on."""
    patches = load_patches(file)
    with np.load(file, allow_pickle=False) as stored:
        slides = stored["slide"].astype(str)
    scores = score_patches(network, patches.rgb, patch_mpp=LEVEL0_MPP, mpp=1.0)
    truth = patches.label == 1
    by_slide = {s: auc(truth[slides == s], scores[slides == s]) for s in np.unique(slides)}
    return {
        **_figures(patches, scores),
        "auc_by_slide": {s: None if v is None else round(v, 5) for s, v in by_slide.items()},
    }


# -- the report ----------------------------------------------------------------------------------------------------------


def collect(folder: Path) -> list[dict[str, Any]]:
    """Results in `folder`, those of one study and variant side by side."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]


def summary(results: list[dict[str, Any]], together: Sequence[Together] = ()) -> list[dict[str, Any]]:
    """One row for each study and variant, and for what is judged together: mean, lowest and highest over the seeds of each figure that was
    measured. All seeds together have one AUC, with its 95 % interval (DeLong) in the place of lowest and highest."""
    rows = [judged for one in together if (judged := _row_of(one, results)) is not None]
    for study, variant in sorted({(r["study"], r["variant"]) for r in results}):
        mine = [r for r in results if (r["study"], r["variant"]) == (study, variant)]
        row: dict[str, Any] = {"study": study, "variant": variant, "seeds": len(mine), "steps": mine[0]["steps"]}
        for name, path in _FIGURES.items():
            values = [v for v in (_at(r, path) for r in mine) if v is not None]
            if values:
                row[name] = _spread_of(values)
        row.update(_of_all_seeds(mine))
        rows.append(row)
    return sorted(rows, key=lambda row: (row["study"], row["variant"]))


def _row_of(one: Together, results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the seeds that every one of its variants has been trained with; None without any."""
    mine = [r for r in results if r["study"] == one.study and r["variant"] in one.variants and _log_odds([r])]
    by_seed = [[r for r in mine if r["seed"] == seed] for seed in sorted({r["seed"] for r in mine})]
    complete = [some for some in by_seed if len(some) == len(one.variants)]
    values = [found.value for some in complete if (found := _auc_of_mean(some)) is not None]
    if not values:
        return None
    of_all = [r for some in complete for r in some]
    return {
        "study": one.study,
        "variant": one.name,
        "seeds": len(complete),
        "steps": sum(r["steps"] for r in complete[0]),
        "other_scanner_adapted": _spread_of(values),
        **_of_all_seeds(of_all),
    }


def _spread_of(values: list[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 4), "low": round(min(values), 5), "high": round(max(values), 5)}


_FIGURES = {
    "auc": ("test", "auc"),
    "auc_2um": ("test_coarse", "auc"),
    "other_scanner": ("other_scanner", "auc"),
    "other_scanner_test": ("other_scanner", "test_fold", "auc"),
    "other_scanner_test_8": ("other_scanner", "test_fold_eight_ways", "auc"),
    "other_scanner_adapted": ("other_scanner", "adapted", "test_fold_eight_ways", "auc"),
    "hard_fpr": ("hard_negatives", "false_positive_rate"),
    "level0": ("level0_patches", "auc"),
    "dice": ("composed_regions", "dice"),
    "box_iou": ("composed_regions", "box_iou"),
    "cpu_s": ("cpu_seconds", "training"),
}


def _of_all_seeds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the mean log odds of the adapted networks say on the other scanner's test fold; nothing of fewer than two seeds."""
    known = [r for r in results if _log_odds([r])]
    if len({r["seed"] for r in known}) < 2:
        return {}
    found = _auc_of_mean(known)
    if found is None:
        return {}
    return {
        "other_scanner_together": {
            "mean": round(found.value, 4),
            "low": round(found.low, 4),
            "high": round(found.high, 4),
        }
    }


def _auc_of_mean(results: list[dict[str, Any]]) -> Interval | None:
    """None where the patches are of one class. Raises ConfigurationError where they are not the same ones."""
    tumour = [r["other_scanner"]["adapted"]["tumour"] for r in results]
    if any(some != tumour[0] for some in tumour):
        names = ", ".join(sorted({r["variant"] for r in results}))
        raise ConfigurationError(f"{names} were not judged on the same patches, and cannot be judged together")
    return auc_interval(np.array(tumour[0], bool), np.mean(_log_odds(results), axis=0))


def _log_odds(results: list[dict[str, Any]]) -> list[list[float]]:
    """Of those that got used to another scanner."""
    return [found["log_odds"] for r in results if (found := r.get("other_scanner", {}).get("adapted"))]


def _at(result: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = result
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else float(value)


def _merged_rows(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of before, apart from the studies that `now` has rows of."""
    studies = {row["study"] for row in now}
    return sorted(
        [*(row for row in before if row["study"] not in studies), *now], key=lambda row: (row["study"], row["variant"])
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; a figure is its mean over the seeds with the lowest and highest beside it."""
    names = [n for n in (*_FIGURES, "other_scanner_together") if any(n in row for row in rows)]
    lines = ["| study | variant | seeds | steps | " + " | ".join(n.replace("_", " ") for n in names) + " |"]
    lines.append("|---" * (4 + len(names)) + "|")
    for row in rows:
        cells = [_cell(row.get(n)) for n in names]
        lines.append(
            f"| {row['study']} | {row['variant']} | {row['seeds']} | {row['steps']} | " + " | ".join(cells) + " |"
        )
    return lines


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    if figure["low"] == figure["high"]:
        return f"{figure['mean']:.4g}"
    return f"{figure['mean']:.4g} ({figure['low']:.4g} to {figure['high']:.4g})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.detector.study", description="Run a plan of trainings.")
    parser.add_argument("plan", type=Path, nargs="?", default=DEFAULT_PLAN, metavar="PLAN.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="one JSON file for each finished run")
    parser.add_argument("--only", action="append", metavar="STUDY", help="only this study (may be given again)")
    parser.add_argument("--report", action="store_true", help="print the table of what is there, train nothing")
    parser.add_argument("--record", type=Path, metavar="MODEL", help="keep the table in the card of this model version")
    options = parser.parse_args(arguments)
    try:
        plan = read_plan(options.plan)
        known = list(dict.fromkeys(run.study for run in plan.runs))
        for name in options.only or ():
            if name not in known:
                raise ConfigurationError(f"there is no study {name!r} in the plan; there are {', '.join(known)}")
        options.out.mkdir(parents=True, exist_ok=True)
        if not options.report:
            _carry_out_all([r for r in plan.runs if not options.only or r.study in options.only], options.out)
        rows = summary(collect(options.out), plan.together)
        if options.record:
            content = read_card(options.record)
            content["card"]["studies"] = _merged_rows(content["card"].get("studies", []), rows)
            write_card(options.record, content)
    except (
        ConfigurationError,
        ModelRefused,
        ReferenceDataMissing,
        PatchFileError,
        ModuleNotFoundError,
        OSError,
    ) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the run it was at", file=sys.stderr)
        return 130
    print("\n".join(table(rows)))
    return 0


def _carry_out_all(runs: list[Run], folder: Path) -> None:
    for number, run in enumerate(runs, start=1):
        if (folder / f"{run.name}.json").exists():
            continue
        print(f"{number}/{len(runs)} {run.name}, {run.steps} steps", file=sys.stderr, flush=True)
        carry_out(run, folder=folder, cache=folder / "tissue")


if __name__ == "__main__":
    sys.exit(main())
