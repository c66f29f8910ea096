"""Which weights of a run are kept."""

from pathlib import Path

import numpy as np

from analysis.detector import train
from analysis.detector.configuration import config_from_dict
from analysis.detector.training.material import load_material
from tests.analysis.detector.test_patch_file import write_patches


def trainer_in(folder: Path) -> train.Trainer:
    write_patches(folder / "p.npz", n=120)
    write_patches(folder / "hard.npz", n=120)
    config = config_from_dict(
        {
            "network": {"pyramid_channels": 16, "tower_depth": 1, "dense_channels": 16},
            "data": {
                "folder": str(folder),
                "patches": ["p.npz"],
                "hard_negatives": ["hard.npz"],
                "validation_percent": 40,
            },
            "train": {"regions_every": 0, "pretrained": False},
        }
    )
    return train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), folder)


def test_hard_negatives_kept_aside_are_judged_and_never_learnt(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    material = trainer.material
    held = set(material.validation_hard_negative.ids)
    assert held
    assert not held & set(material.hard_negative.ids)
    assert not held & set(material.test_hard_negative.ids)
    judged = trainer.validate()
    assert {"auc", "auc_with_hard", "auc_coarse"} <= set(judged)


def test_the_checkpoint_is_chosen_with_the_hard_negatives(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    best = tmp_path / "best.safetensors"
    trainer.keep_if_best({"auc": 0.95, "auc_with_hard": 0.90})
    first = best.read_bytes()
    trainer.progress.step = 7
    next(iter(trainer.average.values())).add_(1.0)
    trainer.keep_if_best({"auc": 0.97, "auc_with_hard": 0.89})  # better on plain patches alone
    assert best.read_bytes() == first
    trainer.keep_if_best({"auc": 0.94, "auc_with_hard": 0.91})
    assert best.read_bytes() != first
    assert (trainer.progress.best_auc, trainer.progress.best_step) == (0.91, 7)
