"""Regions cut from annotated slides, and a training on them, on small made slides."""

import csv
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from shapely.geometry import Polygon, box
from torch import Tensor

from analysis.detector import train
from analysis.detector.annotations import write_asap
from analysis.detector.composing.slide_file import write_pyramid
from analysis.detector.configuration import DataConfig, load_config
from analysis.detector.training import annotated_slides, slide_material
from analysis.detector.training.annotated_slides import AnnotatedRegions, open_slides, out_of_focus
from analysis.detector.training.batches import BatchesAhead, BatchMaker
from analysis.detector.training.hard_negatives import FalseFind, use
from analysis.detector.training.material import Material, no_patches
from analysis.detector.training.slide_folders import find_slides
from analysis.detector.training.targets import RegionTarget
from slides.wsi.errors import SlideRefused
from tests.analysis.detector.conftest import REPOSITORY, tissue_like

SIDE = 192
SMALL_LESION, LARGE_LESION = box(200, 200, 290, 280), box(500, 300, 1100, 800)


def write_slide(folder: Path, name: str, lesions: list[Polygon], *, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.full((1000, 1300, 3), 244, np.uint8)
    rgb[60:940, 60:1240] = tissue_like(880, 1180, seed=seed)
    for lesion in lesions:
        x0, y0, x1, y1 = (int(v) for v in lesion.bounds)
        rgb[y0:y1, x0:x1] = (rgb[y0:y1, x0:x1] * 0.6).astype(np.uint8)
    write_pyramid(folder / f"{name}.tif", rgb, mpp=1.0, description="made", quality=90)
    if lesions:
        write_asap(folder / f"{name}.xml", lesions)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own slides")
    for number in (1, 2):
        write_slide(root / "training/normal", f"normal_00{number}", [], seed=number)
        write_slide(root / "training/tumor", f"tumor_00{number}", [SMALL_LESION, LARGE_LESION], seed=10 + number)
    write_slide(root / "training/tumor", "tumor_010", [LARGE_LESION], seed=20)  # known to be partly annotated
    return root


@pytest.fixture(scope="module")
def kept(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, where sites and fields of the slides are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def regions(slides: Path, kept: Path) -> Iterator[AnnotatedRegions]:
    found = open_all(slides, kept)
    yield found
    found.reader.close()


def open_all(slides: Path, folder: Path, *, cache_mb: int = 100) -> AnnotatedRegions:
    inventory = find_slides(DataConfig(slides=(str(slides),)))
    found = open_slides(inventory.slides, folder=folder, region_px=SIDE, mpp=1.0, cache_mb=cache_mb, say=print)
    assert found is not None
    return found


def test_every_lesion_is_drawn_alike_and_small_ones_twice(regions: AnnotatedRegions) -> None:
    share = dict(zip(regions.lesions, regions.lesion_share, strict=True))
    assert len(share) == 5
    small = [s for (name, i), s in share.items() if regions.sites[name].small[i]]
    large = [s for (name, i), s in share.items() if not regions.sites[name].small[i]]
    assert len(small) == 2
    assert all(s == pytest.approx(2 * large[0]) for s in small)


def test_nothing_outside_the_outlines_of_a_partly_annotated_slide_is_learnt(regions: AnnotatedRegions) -> None:
    sites = regions.sites["tumor_010"]
    assert not sites.normal
    assert not sites.tissue
    for site in sites.lesions[0][:3] + sites.edges[0][:3]:
        field = regions.reader.field("tumor_010", site)
        assert (field.ignore | (field.instance > 0)).all()


def test_a_ring_around_the_outline_is_left_out(regions: AnnotatedRegions) -> None:
    half = regions.reader.field_px // 2
    field = regions.reader.field("tumor_001", (500, 550))  # the middle of the large lesion's left edge
    row_ignored, row_tumour = field.ignore[half], field.instance[half] > 0
    assert row_tumour[half + 3 :].all()
    assert not row_tumour[: half - 2].any()
    assert row_ignored[half - 34 : half - 3].all()
    assert not row_ignored[: half - 42].any()
    assert not row_ignored[half + 3 :].any()


def test_normal_sites_keep_away_from_tumour_and_lie_on_tissue(regions: AnnotatedRegions) -> None:
    for x, y in regions.sites["tumor_001"].normal:
        assert 40 <= x <= 1260
        assert 40 <= y <= 960
        for lesion in (SMALL_LESION, LARGE_LESION):
            assert lesion.exterior.distance(Polygon([(x, y), (x + 1, y), (x, y + 1)])) > 280


def test_the_same_state_draws_the_same_region_from_slide_and_from_disk(
    regions: AnnotatedRegions, slides: Path, kept: Path, tmp_path: Path
) -> None:
    first = [regions.make(np.random.default_rng(n)) for n in range(12)]
    uncached = open_all(slides, tmp_path / "other", cache_mb=0)
    for again in (regions, uncached):
        second = [again.make(np.random.default_rng(n)) for n in range(12)]
        for a, b in zip(first, second, strict=True):
            assert a.rgb.shape == (SIDE, SIDE, 3)
            assert np.array_equal(a.rgb, b.rgb)
            assert np.array_equal(a.instance, b.instance)
            assert np.array_equal(a.ignore, b.ignore)
    uncached.reader.close()
    assert list((kept / "fields").glob("*.npz"))
    assert not (tmp_path / "other/fields").exists()
    assert any(a.instance.any() for a in first)
    assert not all(a.instance.any() for a in first)


def test_a_damaged_field_on_disk_is_read_from_its_slide_again(regions: AnnotatedRegions, kept: Path) -> None:
    site = regions.sites["tumor_001"].lesions[0][0]
    whole = regions.reader.field("tumor_001", site)
    for stored in (kept / "fields").glob("*.npz"):
        stored.write_bytes(stored.read_bytes()[:1000])
    assert np.array_equal(regions.reader.field("tumor_001", site).rgb, whole.rgb)


def test_at_most_some_slides_are_open(regions: AnnotatedRegions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated_slides, "OPEN_SLIDES", 2)
    for name in regions.sites:
        regions.reader.source_of(name)
    assert len(regions.reader._open) == 2


def test_a_blurred_part_is_left_out_and_a_sharp_one_is_not() -> None:
    sharp = tissue_like(256, 256, seed=4)
    soft = np.stack([gaussian_filter(sharp[..., c].astype(float), 3.0) for c in range(3)], axis=-1).astype(np.uint8)
    assert not out_of_focus(sharp, mpp=1.0).any()
    assert out_of_focus(soft, mpp=1.0).all()
    glass = np.full((256, 256, 3), 244, np.uint8)
    assert not out_of_focus(glass, mpp=1.0).any()


def test_false_finds_are_drawn_again(regions: AnnotatedRegions) -> None:
    site = regions.sites["normal_001"].tissue[0]
    own = AnnotatedRegions(regions.sites, regions.reader, side=SIDE, mpp=1.0)
    material = dataclasses.replace(no_patches(), slides=own)
    use([FalseFind(1, "slide", "normal_001", site[0], site[1], 0.9)], material)
    drawn = [own._place(np.random.default_rng(n)) for n in range(200)]
    share = np.mean([place == ("normal_001", site) for place in drawn])
    assert 0.1 < share < 0.35


# -- training ------------------------------------------------------------------------------------------------------------


def configuration(folder: Path, slides: Path, *, epochs: int = 2, workers: int = 0) -> Path:
    text = (REPOSITORY / "analysis/detector/configs/tiny.toml").read_text()
    text = text.replace("max_patches = 64", f'patches = []\nhard_negatives = []\nslides = ["{slides}"]\ntest_fold = -1')
    text = text.replace(
        "epochs = 2", f"epochs = {epochs}\nregions_per_epoch = 4\nhard_negative_every = 1\nwarmup_steps = 2"
    )
    text = text.replace(
        "[train]", f'[train]\ndevice = "cpu"\nworkers = {workers}\ncheckpoint_every_steps = 2\nhard_negative_fields = 6'
    )
    (folder / "own.toml").write_text(text)
    return folder / "own.toml"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_on_slides_stopped_by_ctrl_c_goes_on_to_the_same_weights(
    workers: int, slides: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_material, "VALIDATION_NORMAL_FIELDS", 4)
    monkeypatch.setattr(slide_material, "VALIDATION_FIELDS_PER_LESION", 1)
    config = configuration(tmp_path, slides)
    assert train.main([str(config), "--out", str(tmp_path / "whole")]) == 0
    said = capfd.readouterr().out
    assert "5 slides: 3 with lesions (1 of them partly annotated), 2 normal" in said
    assert "in the pool of false finds" in said

    steps = []
    plain_step = train.Trainer.step

    def step_and_press(self: train.Trainer) -> dict[str, Tensor]:
        steps.append(self.progress.step)
        if len(steps) == 3:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return plain_step(self)

    config = configuration(tmp_path, slides, workers=workers)
    monkeypatch.setattr(train.Trainer, "step", step_and_press)
    assert train.main([str(config), "--out", str(tmp_path / "broken")]) == 130
    errors = capfd.readouterr().err
    assert "stopping when the step or round under way is done" in errors
    assert "stopped at step 3 of 8; the same command goes on from there" in errors
    assert not multiprocessing.active_children()
    assert not (tmp_path / "broken/model").exists()
    assert train.main([str(config), "--out", str(tmp_path / "broken")]) == 0
    assert steps == list(range(8))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert (whole / "model/weights.safetensors").read_bytes() == (broken / "model/weights.safetensors").read_bytes()
    for name in ("hard_negatives.csv", "splits.csv"):
        assert (whole / name).read_text() == (broken / name).read_text()
    for folder in (whole, broken):
        with (folder / "loss.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 9))
        page = (folder / "loss.html").read_text()
        assert "Finished at step 8" in page
        assert 'http-equiv="refresh"' not in page
        assert "<polyline" in page


def slides_alone(regions: AnnotatedRegions) -> Material:
    return dataclasses.replace(no_patches(), slides=regions, regions=regions)


def test_processes_that_prepare_batches_read_the_slides_for_themselves(slides: Path, tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path, slides))
    regions = open_all(slides, tmp_path, cache_mb=0)  # leaves slides open here
    maker = BatchMaker(config, slides_alone(regions))
    ahead = BatchesAhead(maker, range(3, 9), workers=2)
    there = [ahead.take() for _ in range(6)]
    ahead.close()
    assert not multiprocessing.active_children()
    here = [maker.make(step) for step in range(3, 9)]
    regions.reader.close()
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours.rgb, theirs.rgb)
        assert isinstance(ours.truth, RegionTarget)
        assert isinstance(theirs.truth, RegionTarget)
        assert torch.equal(ours.truth.mask, theirs.truth.mask)
        assert torch.equal(ours.truth.levels[0].box, theirs.truth.levels[0].box)


def test_processes_that_prepare_batches_divide_what_is_left_of_the_cache(slides: Path, tmp_path: Path) -> None:
    reader = open_all(slides, tmp_path, cache_mb=10).reader
    assert reader.left_bytes == 10**7
    reader.share_with(4)
    assert reader.left_bytes == 10**7 // 4
    reader.field("normal_001", (600, 500))
    reader.share_with(1)
    assert reader.left_bytes == 10**7 - sum(path.stat().st_size for path in (tmp_path / "fields").iterdir())


def test_a_slide_that_fails_in_such_a_process_is_told_in_the_same_words(tmp_path: Path) -> None:
    for name, lesions in (("tumor_001", [SMALL_LESION]), ("tumor_002", [LARGE_LESION])):
        write_slide(tmp_path / "slides", name, lesions, seed=3)
    regions = open_all(tmp_path / "slides", tmp_path, cache_mb=0)
    regions.reader.close()
    for slide in (tmp_path / "slides").glob("*.tif"):
        slide.write_bytes(b"no slide")
    said = []
    for workers in (0, 2):
        config = load_config(configuration(tmp_path, tmp_path / "slides", workers=workers))
        trainer = train.Trainer(config, slides_alone(regions), tmp_path)
        with pytest.raises(SlideRefused) as problem:
            trainer.step()
        trainer.close()
        said.append((problem.value.code, problem.value.message, str(problem.value)))
    assert said[0] == said[1]
    assert not multiprocessing.active_children()


def test_training_stops_when_validation_no_longer_gains(
    slides: Path, tmp_path: Path, regions: AnnotatedRegions
) -> None:
    path = configuration(tmp_path, slides)
    path.write_text(path.read_text().replace("[train]", "[train]\npatience = 2"))
    trainer = train.Trainer(load_config(path), slides_alone(regions), tmp_path)
    trainer.progress.step = 3 * trainer.steps_per_epoch
    trainer.progress.best_step = 2 * trainer.steps_per_epoch
    assert not train._has_stopped_gaining(trainer)
    trainer.progress.step += trainer.steps_per_epoch
    assert train._has_stopped_gaining(trainer)


def test_a_curve_file_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("step,loss\n5,1\n10,2\n15,3\n20,4")  # killed in the middle of a row
    train._forget_after(path, 10)
    assert path.read_text() == "step,loss\n5,1\n10,2\n"
