import numpy as np
import scipy.ndimage as ndi

from slides.wsi.tissue import tissue_mask

GLASS = np.full((400, 400, 3), (243, 241, 244), np.uint8)
HAEMATOXYLIN_EOSIN = {"nuclei": (110, 70, 150), "eosin": (225, 150, 190), "pale fat rim": (231, 215, 231)}


def on_glass(colour: tuple[int, int, int], *, noise: int = 3) -> np.ndarray:
    random = np.random.default_rng(0)
    rgb = GLASS.astype(int)
    rgb[100:300, 100:300] = colour
    return np.clip(rgb + random.integers(-noise, noise + 1, rgb.shape), 0, 255).astype(np.uint8)


def test_glass_alone_is_no_tissue() -> None:
    assert not tissue_mask(on_glass((243, 241, 244)), 8.0).any()


def test_every_stain_is_tissue() -> None:
    for name, colour in HAEMATOXYLIN_EOSIN.items():
        mask = tissue_mask(on_glass(colour), 8.0)
        assert mask[100:300, 100:300].mean() > 0.995, name
        assert mask.mean() < 0.3, name


def test_pen_ink_is_no_tissue() -> None:
    for ink in ((20, 60, 150), (20, 120, 60), (15, 15, 15)):
        assert tissue_mask(on_glass(ink), 8.0)[110:290, 110:290].mean() < 0.01, ink


def test_the_insides_of_fat_cells_belong_to_the_tissue() -> None:
    rgb = on_glass((243, 241, 244))
    for place in range(100, 300, 10):  # walls 80 um apart, 8 um wide
        rgb[place, 100:300] = (225, 160, 200)
        rgb[100:300, place] = (225, 160, 200)
    assert tissue_mask(rgb, 8.0)[110:285, 110:285].mean() > 0.95


def test_yellowish_glass_is_no_tissue() -> None:
    rgb = np.full((300, 300, 3), (236, 232, 215), np.uint8)
    assert not tissue_mask(rgb, 8.0).any()


def test_a_slide_without_any_glass_is_all_tissue() -> None:
    rgb = np.full((200, 200, 3), (200, 120, 170), np.uint8)
    assert tissue_mask(rgb, 8.0).mean() > 0.99


def test_a_tall_picture_is_masked_as_the_same_picture_lying_down() -> None:
    """Rows are taken some hundred at a time: where one lot ends must not show."""
    rng = np.random.default_rng(5)
    rough = ndi.gaussian_filter(rng.normal(size=(1300, 200)), 12)
    tall = np.full((1300, 200, 3), 244, np.uint8)
    tall[rough > rough.std()] = (170, 100, 160)
    tall[rough > 2 * rough.std()] = (60, 60, 180)
    mask = tissue_mask(tall, 8.0)
    assert 0.05 < mask.mean() < 0.6
    assert np.array_equal(mask, tissue_mask(tall.transpose(1, 0, 2), 8.0).T)
