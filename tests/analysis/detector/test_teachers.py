"""A training may learn from other model versions beside the labels."""

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from analysis.detector import train
from analysis.detector.configuration import ConfigurationError, DetectorConfig, config_from_dict, load_config
from analysis.detector.network.detector import Detector, NetworkOutput, scaled
from analysis.detector.training.batches import UNKNOWN, BatchMaker, blend
from analysis.detector.training.losses import Taught, mean_of, patch_loss, pool_centre
from analysis.detector.training.material import load_material
from analysis.detector.weights import load_model, save_model
from tests.analysis.detector.test_patch_file import write_patches

SIZES = {"pyramid_channels": 16, "tower_depth": 1, "dense_channels": 16}


def said(logit: torch.Tensor, *, stride: int = 8) -> NetworkOutput:
    return NetworkOutput(logit, torch.zeros_like(logit), [], stride, "mask")


def version(folder: Path, *, seed: int = 0, mpp: float = 1.0, **network: object) -> Path:
    config = config_from_dict({"network": {**SIZES, **network}, "train": {"mpp": mpp}})
    torch.manual_seed(seed)
    save_model(folder, state=Detector(config.network).state_dict(), config=config, version=folder.name, card={})
    return folder


def taught_by(tmp_path: Path, teachers: list[str], **options: object) -> DetectorConfig:
    write_patches(tmp_path / "p.npz", n=60)
    schedule = {"pretrained": False, "regions_every": 0, "epochs": 1, "patch_batch": 8, "device": "cpu"}
    config = config_from_dict(
        {
            "network": {**SIZES, "dense_stride": 8},
            "data": {"folder": str(tmp_path), "patches": ["p.npz"], "hard_negatives": []},
            "train": {**schedule, "teachers": teachers, **options},
        }
    )
    return config


def test_of_a_patch_without_a_label_the_teachers_alone_are_believed() -> None:
    logit = torch.zeros(2, 1, 8, 8, requires_grad=True)
    taught = Taught(centre=torch.tensor([0.9, 0.9]), field=torch.full((2, 1, 8, 8), 0.5))
    label = torch.tensor([UNKNOWN, 0.0])
    patch_loss(said(logit), label, centre_px=16, taught=taught, teacher_share=0.25).backward()
    assert logit.grad is not None
    unknown, known = logit.grad[:, 0, 4, 4].tolist()
    assert unknown < 0, "it is drawn up to the teachers' 0.9"
    assert known > 0, "a quarter of the teachers' 0.9 and three of the label's 0 lie below one half"


def test_without_teachers_a_patch_without_a_label_is_not_learnt_from() -> None:
    logit = torch.zeros(2, 1, 8, 8, requires_grad=True)
    patch_loss(said(logit), torch.tensor([UNKNOWN, 1.0]), centre_px=16).backward()
    assert logit.grad is not None
    assert not logit.grad[0].any()
    assert logit.grad[1].any()


def test_teachers_speak_of_the_whole_field_whatever_their_stride() -> None:
    field = torch.full((1, 1, 16, 16), 0.5)
    field[:, :, :2, :2] = 1.0
    logit = torch.zeros(1, 1, 8, 8, requires_grad=True)
    taught = Taught(centre=torch.tensor([0.5]), field=field)
    patch_loss(said(logit), torch.tensor([UNKNOWN]), centre_px=16, taught=taught).backward()
    assert logit.grad is not None
    assert logit.grad[0, 0, 0, 0] < 0
    assert logit.grad[0, 0].count_nonzero() == 1


def test_teachers_are_asked_for_the_mean_of_their_probabilities() -> None:
    low, high = (torch.full((1, 1, 8, 8), value) for value in (-20.0, 20.0))
    together = mean_of([(said(low), 16), (said(high), 16)])
    assert together.centre.item() == pytest.approx(0.5)
    assert together.field.unique().item() == pytest.approx(0.5)


def test_a_teacher_of_a_finer_spacing_says_what_it_would_of_the_enlarged_patch(tmp_path: Path) -> None:
    fine = version(tmp_path / "fine", seed=3, heads="mask", attention="none", mpp=0.5)
    config = taught_by(tmp_path, [str(fine)], coarse_share=0.0)
    trainer = train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)
    batch = BatchMaker(config, trainer.material).make(0)
    found = trainer._taught(batch)
    with torch.no_grad():
        larger = functional.interpolate(scaled(batch.rgb), scale_factor=2, mode="bilinear", align_corners=False)
        out = load_model(fine).network(larger)
    wanted = pool_centre(out.tumour_logit[:, 0], centre_px=2 * batch.centre_px, stride=4)
    torch.testing.assert_close(found.centre, torch.sigmoid(wanted), atol=1e-4, rtol=0)

    together = mean_of([(said(torch.full((1, 1, 8, 8), -20.0)), 16), (said(torch.full((1, 1, 16, 16), 20.0)), 32)])
    assert together.field.shape[-2:] == (8, 8)
    assert together.field.unique().item() == pytest.approx(0.5)


def test_a_teacher_whose_spacing_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = taught_by(tmp_path, [str(version(tmp_path / "t", mpp=0.7))])
    with pytest.raises(ConfigurationError, match=r"train\.teachers: .* was trained at 0\.7 um/px"):
        train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)


def test_a_blended_patch_has_a_blended_label_and_an_unknown_one_stays_unknown() -> None:
    rgb = np.repeat(np.array([0, 200], np.uint8), [20, 20])[:, None, None, None] * np.ones((40, 4, 4, 3), np.uint8)
    label = np.repeat(np.array([0, 1], np.float32), [20, 20])
    mixed, blended = blend(rgb, label, share=1.0, rng=np.random.default_rng(0))
    assert ((blended > 0) & (blended < 1)).any()
    assert np.abs(mixed.mean(axis=(1, 2, 3)) / 200 - blended).max() < 0.01
    kept, same = blend(rgb, label, share=0.0, rng=np.random.default_rng(0))
    assert (kept == rgb).all()
    assert (same == label).all()
    label[:20] = UNKNOWN
    _, unknown = blend(rgb, label, share=1.0, rng=np.random.default_rng(0))
    assert (unknown[:20] == UNKNOWN).all()
    assert ((unknown[20:] == UNKNOWN) | (unknown[20:] == 1)).all()


def test_patches_without_a_label_are_shown_where_there_are_teachers(tmp_path: Path) -> None:
    for teachers, expected in (([str(tmp_path)], True), ([], False)):
        config = taught_by(tmp_path, teachers)
        maker = BatchMaker(config, load_material(config, rng=np.random.default_rng(0)))
        labels = torch.cat([maker.make(step).truth for step in range(8)])  # type: ignore[arg-type]
        assert bool((labels == UNKNOWN).any()) is expected


def test_teachers_look_at_the_fine_spacing_where_the_network_looks_at_the_coarse_one(tmp_path: Path) -> None:
    config = taught_by(tmp_path, [str(tmp_path)], coarse_share=1.0)
    batch = BatchMaker(config, load_material(config, rng=np.random.default_rng(0))).make(0)
    assert batch.taught is not None
    assert batch.taught.shape[1] == 2 * batch.rgb.shape[1]
    middle = batch.taught.float().unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).mean(dim=(2, 4))
    assert (middle - batch.rgb.float()).abs().mean() < 6, "the same field"


def test_a_network_learns_what_its_teachers_say(tmp_path: Path) -> None:
    teachers = [version(tmp_path / f"t{seed}", seed=seed, heads="mask", attention="none") for seed in (1, 2)]
    config = taught_by(tmp_path, [str(t) for t in teachers], teacher_share=1.0, warmup_steps=1, epochs=60)
    trainer = train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)
    with closing(trainer):
        losses = [trainer.step()["loss"].item() for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(not parameter.requires_grad for teacher, _ in trainer.teachers for parameter in teacher.parameters())


def test_teachers_whose_maps_differ_are_refused(tmp_path: Path) -> None:
    teachers = [str(version(tmp_path / "a")), str(version(tmp_path / "b", dense_stride=8))]
    config = taught_by(tmp_path, teachers)
    with pytest.raises(ConfigurationError, match=r"train\.teachers: .*dense_stride"):
        train.Trainer(config, load_material(config, rng=np.random.default_rng(0)), tmp_path)


def test_the_card_names_the_teachers_and_not_where_they_lay(tmp_path: Path) -> None:
    version(tmp_path / "teacher-1")
    write_patches(tmp_path / "p.npz", n=60)
    path = tmp_path / "c.toml"
    network = "[network]\npyramid_channels = 16\ntower_depth = 1\ndense_channels = 16\n"
    data = f'[data]\nfolder = "{tmp_path}"\npatches = ["p.npz"]\nhard_negatives = []\n'
    schedule = "pretrained = false\nregions_every = 0\nepochs = 1\n"
    path.write_text(f'{network}{data}[train]\nteachers = ["teacher-1"]\n{schedule}')
    assert load_config(path).train.teachers == (str(tmp_path / "teacher-1"),)
    assert train.main([str(path), "--out", str(tmp_path / "run")]) == 0
    assert load_model(tmp_path / "run" / "model").config.train.teachers == ("teacher-1",)


@pytest.mark.parametrize("name", ["mixup", "teacher_share", "unlabelled_share"])
def test_a_share_lies_between_0_and_1(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        dataclasses.replace(config_from_dict({}).train, **{name: 1.5})
