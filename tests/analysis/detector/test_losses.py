import dataclasses

import numpy as np
import pytest
import torch

from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.losses import WEIGHTS, giou, patch_loss, pool_centre, region_losses, total
from analysis.detector.training.regions import Region
from analysis.detector.training.targets import build_targets, cell_centres
from tests.analysis.detector.conftest import SMALL, tissue_like

SIDE = 128


def region(*boxes: tuple[int, int, int, int]) -> Region:
    """Rectangular lesions, left, top, right, bottom."""
    instance = np.zeros((SIDE, SIDE), np.int16)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        instance[top:bottom, left:right] = number
    return Region(tissue_like(SIDE, SIDE), instance, np.zeros((SIDE, SIDE), bool))


@pytest.mark.parametrize(
    "regions", [[region()], [region(), region((40, 40, 80, 90))]], ids=["no lesion at all", "one of two"]
)
@pytest.mark.parametrize("dense_stride", [4, 8])
def test_losses_are_finite_and_have_gradients(regions: list[Region], dense_stride: int) -> None:
    torch.manual_seed(1)
    network = Detector(dataclasses.replace(SMALL, dense_stride=dense_stride))
    target = build_targets(regions, dense_stride=dense_stride)
    parts = region_losses(network(to_input(np.stack([r.rgb for r in regions]))), target)
    assert set(parts) == set(WEIGHTS)
    assert all(torch.isfinite(value) for value in parts.values())
    total(parts).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def test_normal_tissue_alone_weighs_the_same_however_much_of_it_a_batch_holds() -> None:
    torch.manual_seed(1)
    network = Detector(SMALL).eval()

    def class_loss(regions: list[Region]) -> float:
        out = network(to_input(np.stack([r.rgb for r in regions])))
        return region_losses(out, build_targets(regions, dense_stride=4))["class"].item()

    assert class_loss([region()] * 4) == pytest.approx(class_loss([region()]), rel=1e-3)


def test_a_lesion_is_carried_by_the_level_of_its_size_and_the_box_comes_back() -> None:
    left, top, right, bottom = 30, 20, 70, 76
    target = build_targets([region((left, top, right, bottom))], dense_stride=4)
    small = target.levels[0]
    cells = small.box_cell[0].nonzero().tolist()
    assert cells
    assert not any(level.box_cell.any() for level in target.levels[1:])
    for row, col in cells:
        x, y = cell_centres(16, 8)[col], cell_centres(16, 8)[row]
        sides = small.box[0, :, row, col].tolist()
        assert (x - sides[0], y - sides[1], x + sides[2], y + sides[3]) == pytest.approx((left, top, right, bottom))


def test_a_side_cut_by_the_edge_carries_no_box_loss() -> None:
    target = build_targets([region((0, 30, 50, 90))], dense_stride=4)
    level = target.levels[0]
    assert level.box_cell.any()
    assert level.cut[0, 0][level.box_cell[0]].all()
    assert not level.cut[0, 1:][:, level.box_cell[0]].any()


def test_tumour_whose_box_belongs_to_another_level_is_no_normal_tissue() -> None:
    target = build_targets([region((0, 0, SIDE, SIDE))], dense_stride=4)
    first = target.levels[0]
    assert not first.box_cell.any()
    assert (first.class_target[0] == 1).sum() > 100
    assert bool((first.outside_level == (first.class_target == 1)).all())


def test_giou_is_one_for_equal_boxes_and_falls_below_iou_for_others() -> None:
    a = torch.tensor([[10.0, 10, 10, 10], [10, 10, 10, 10]])
    b = torch.tensor([[10.0, 10, 10, 10], [20, 2, 5, 10]])
    iou, generalised = giou(a, b)
    assert iou[0] == generalised[0] == pytest.approx(1)
    assert generalised[1] < iou[1] < 1


def test_only_the_centre_of_a_patch_is_judged() -> None:
    logit = torch.full((1, 24, 24), -5.0)
    logit[:, :6] = 9.0
    assert pool_centre(logit, centre_px=32, stride=4).item() == pytest.approx(-5.0, abs=1e-4)
    logit[:, 12, 12] = 9.0
    assert pool_centre(logit, centre_px=32, stride=4).item() > 3


def test_patch_loss_falls_in_a_few_steps() -> None:
    torch.manual_seed(2)
    network = Detector(SMALL)
    dark, bright = np.full((4, 64, 64, 3), 90, np.uint8), np.full((4, 64, 64, 3), 200, np.uint8)
    x = to_input(np.concatenate([dark, bright]))
    label = torch.tensor([1] * 4 + [0] * 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = patch_loss(network(x), label, centre_px=20)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
