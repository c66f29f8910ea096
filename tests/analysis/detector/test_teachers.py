"""Teachers judge only what they never saw, and a run that was stopped keeps what they said."""

import csv
from pathlib import Path

import numpy as np
import pytest

from analysis.detector import train
from analysis.detector.configuration import ConfigurationError, DetectorConfig, config_from_dict
from analysis.detector.training.material import Material, load_material
from analysis.detector.training.teachers import file_of, lesson, part_of, to_learn, with_opinions
from tests.analysis.detector.test_patch_file import write_patches


def config_of(folder: Path, **changes: object) -> DetectorConfig:
    return config_from_dict(
        {
            "network": {"pyramid_channels": 8, "tower_depth": 1, "dense_channels": 8},
            "data": {"folder": str(folder), "patches": ["p.npz"], "hard_negatives": []},
            "train": {
                "epochs": 1,
                "teachers": 2,
                "teacher_epochs": 1,
                "patch_batch": 16,
                "regions_every": 0,
                "pretrained": False,
                **changes,
            },
        }
    )


@pytest.fixture
def material(tmp_path: Path) -> Material:
    write_patches(tmp_path / "p.npz", n=60)
    return load_material(config_of(tmp_path), rng=np.random.default_rng(0))


def test_each_patch_is_kept_from_exactly_one_teacher(material: Material) -> None:
    seen: dict[str, int] = {}
    for teacher in range(3):
        one = lesson(material, teacher=teacher, parts=3)
        assert not len(one.validation)
        assert one.unlabelled is None
        for ids in (one.positive.ids, one.negative.ids):
            for patch in ids:
                seen[str(patch)] = seen.get(str(patch), 0) + 1
    assert set(seen.values()) == {2}
    assert len(seen) == len(material.positive) + len(material.negative)


def test_unlabelled_patches_of_the_test_fold_are_not_used(material: Material, tmp_path: Path) -> None:
    assert material.unlabelled is not None
    assert len(material.unlabelled)
    assert set(material.unlabelled.label) == {-1}
    assert set(material.unlabelled.fold) <= {0, 1, 2, 3}
    without = load_material(config_of(tmp_path, teachers=0), rng=np.random.default_rng(0))
    assert without.unlabelled is None


def test_a_label_is_moved_to_the_opinion_and_an_unlabelled_patch_takes_it_whole(material: Material) -> None:
    assert material.unlabelled is not None
    tumour, unlabelled = material.positive, material.unlabelled
    opinion = {str(tumour.ids[0]): 0.2, str(unlabelled.ids[0]): 0.3}
    assert to_learn(tumour, 0, opinion, weight=0.5) == pytest.approx(0.6)
    assert to_learn(tumour, 0, opinion, weight=0.0) == 1.0
    assert to_learn(tumour, 1, opinion, weight=0.5) == 1.0
    assert to_learn(unlabelled, 0, opinion, weight=0.5) == pytest.approx(0.3)


def test_the_run_trains_its_teachers_then_learns_from_them(material: Material, tmp_path: Path) -> None:
    config, folder = config_of(tmp_path), tmp_path / "run"
    train.train_teacher(config, material, folder, teacher=1, say=lambda text: None)
    before = file_of(folder, 1).stat().st_mtime_ns
    said: list[str] = []
    train.run(config, folder, say=said.append)
    assert file_of(folder, 1).stat().st_mtime_ns == before, "a teacher that had spoken was trained again"
    assert [words for words in said if words.startswith("teacher")] == ["teacher 1 of 2"]
    for teacher in range(2):
        with file_of(folder, teacher).open() as file:
            rows = list(csv.DictReader(file))
        own = {
            str(i) for p in (material.positive, material.negative) for i in p.ids[part_of(p.ids, parts=2) == teacher]
        }
        assert material.unlabelled is not None
        assert {row["id"] for row in rows} == own | {str(i) for i in material.unlabelled.ids}
        assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    opinion = with_opinions(material, config, folder).opinion
    everything = (material.positive, material.negative, material.unlabelled)
    assert set(opinion) == {str(i) for p in everything if p is not None for i in p.ids}
    assert (folder / "model" / "model.json").is_file()
    train.run(config, folder, fresh=True, say=said.append)
    assert file_of(folder, 1).stat().st_mtime_ns > before, "a fresh run asks its teachers afresh"


def test_one_teacher_alone_and_a_number_beyond_them_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="one teacher would see no patch"):
        config_of(tmp_path, teachers=1)
    path = tmp_path / "c.toml"
    path.write_text("[train]\nteachers = 3\n")
    assert train.main([str(path), "--out", str(tmp_path / "run"), "--teacher", "4"]) == 2
    assert "train.teachers = 3" in capsys.readouterr().err
