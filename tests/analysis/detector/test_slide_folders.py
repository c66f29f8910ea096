"""Which slides a folder holds, and what becomes of each. Slide files stay empty: none is opened for this."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from analysis.detector.annotation_masks import MaskFile, mask_values
from analysis.detector.annotations import AnnotationError, paint, read_geojson, write_asap
from analysis.detector.configuration import DataConfig
from analysis.detector.training.slide_folders import SlideFolderError, SlideInventory, divide, find_slides


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xml":
            write_asap(path, [box(10, 10, 400, 300)])
        else:
            path.write_bytes(b"")


def look(root: Path, **options: object) -> SlideInventory:
    return find_slides(DataConfig(slides=(str(root),), **options))  # type: ignore[arg-type]


def by_name(inventory: SlideInventory) -> dict[str, tuple[bool, bool]]:
    return {slide.name: (slide.tumour, slide.partly) for slide in inventory.slides}


def test_camelyon16_as_it_is_published(tmp_path: Path) -> None:
    put(tmp_path / "training/normal", "normal_001.tif", "normal_086.tif", "normal_144.tif")
    put(tmp_path / "training/tumor", "tumor_001.tif", "tumor_010.tif", "tumor_003.tif")
    put(tmp_path / "training/lesion_annotations", "tumor_001.xml", "tumor_010.xml")
    put(tmp_path / "testing/images", "test_001.tif", "test_114.tif")
    (tmp_path / "testing/reference.csv").write_text("test_001,Tumor,IDC,Macro\ntest_114,Tumor,IDC,Macro\n")
    found = look(tmp_path)
    assert set(found.layouts.values()) == {"camelyon16"}
    assert by_name(found) == {"normal_001": (False, False), "tumor_001": (True, False), "tumor_010": (True, True)}
    assert found.unannotated == ["tumor_003"]
    assert set(found.excluded) == {"normal_086", "normal_144", "test_001", "test_114"}
    said = found.report()
    assert "8 slides: 2 with lesions (1 of them partly annotated), 1 normal, 1 without annotation" in said
    assert "tumor_111" in said


def test_the_flat_camelyon16_with_images_annotations_and_masks(tmp_path: Path) -> None:
    put(tmp_path / "images", "normal_001.tif", "tumor_001.tif", "tumor_002.tif")
    put(tmp_path / "annotations", "tumor_001.xml")
    (tmp_path / "masks").mkdir()
    grey = np.zeros((64, 64), np.uint8)
    grey[:32] = 1
    Image.fromarray(grey).save(tmp_path / "masks/normal_001_mask.tif")
    grey[8:16, 8:16] = 2
    Image.fromarray(grey).save(tmp_path / "masks/tumor_002_mask.tif")
    found = look(tmp_path)
    assert by_name(found) == {
        "normal_001": (False, False),  # 1 is tissue there, since 2 is tumour elsewhere in the folder
        "tumor_001": (True, False),
        "tumor_002": (True, False),
    }
    assert "the value 2 is taken for tumour" in found.report()


def test_camelyon17_takes_normal_from_the_stage_labels_alone_and_keeps_a_patient_together(tmp_path: Path) -> None:
    names = [f"patient_{p:03d}_node_{n}.tif" for p in range(12) for n in range(3)]
    put(tmp_path / "training", *(f"center_{i % 5}/{name}" for i, name in enumerate(names)))
    put(tmp_path / "training/lesion_annotations", *(f"patient_{p:03d}_node_0.xml" for p in range(12)))
    lines = ["patient,stage"]
    for p in range(12):
        lines += [
            f"patient_{p:03d}.zip,pN1",
            f"patient_{p:03d}_node_0.tif,macro",
            f"patient_{p:03d}_node_1.tif,negative",
        ]
        lines += [f"patient_{p:03d}_node_2.tif,micro"]
    (tmp_path / "training/stage_labels.csv").write_text("\n".join(lines))
    found = look(tmp_path)
    assert set(found.layouts.values()) == {"camelyon17"}
    assert sum(s.tumour for s in found.slides) == 12
    assert sum(not s.tumour for s in found.slides) == 12
    assert len(found.excluded) == 12  # metastases without outlines
    divide(
        found, DataConfig(slides=(str(tmp_path),), test_fold=1, validation_percent=25), kept=tmp_path / "run/splits.csv"
    )
    splits = {slide.source: slide.split for slide in found.slides}
    assert len({(s.source, s.split) for s in found.slides}) == len(splits) == 12
    assert set(splits.values()) == {"train", "validation", "test"}


def test_a_slide_of_a_plain_folder_is_normal_only_when_something_says_so(tmp_path: Path) -> None:
    put(tmp_path, "a.svs", "a.xml", "b.svs", "c.svs", "normal/d.svs")
    (tmp_path / "c.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    found = look(tmp_path, partly_annotated=("a",))
    assert by_name(found) == {"a": (True, True), "c": (False, False), "d": (False, False)}
    assert found.unannotated == ["b"]


def test_composed_slides_are_not_taken_for_their_namesakes(tmp_path: Path) -> None:
    put(tmp_path, "tumor_010.tif", "tumor_010.xml", "normal_086.tif")
    for name in ("tumor_010", "normal_086"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"composed": True}))
    assert by_name(look(tmp_path)) == {"tumor_010": (True, False), "normal_086": (False, False)}


def test_splits_stay_when_slides_are_added_and_a_split_file_goes_before(tmp_path: Path) -> None:
    put(tmp_path / "s", *(f"{n}.{kind}" for n in "abcdef" for kind in ("svs", "xml")))
    data = DataConfig(slides=(str(tmp_path / "s"),), validation_percent=30, test_fold=-1)
    first = find_slides(data)
    divide(first, data, kept=tmp_path / "splits.csv")
    before = {s.name: s.split for s in first.slides}
    assert set(before.values()) == {"train", "validation"}
    put(tmp_path / "s", *(f"{n}.{kind}" for n in "ghij" for kind in ("svs", "xml")))
    second = find_slides(data)
    divide(second, data, kept=tmp_path / "splits.csv")
    assert {s.name: s.split for s in second.slides if s.name in before} == before
    given = tmp_path / "given.csv"
    given.write_text("slide,split\na.svs,test\nb,validation\n")
    divide(second, dataclasses.replace(data, slide_splits=str(given)), kept=tmp_path / "splits.csv")
    assert {s.name: s.split for s in second.slides if s.name in "ab"} == {"a": "test", "b": "validation"}


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "no slide lies in"),
        (("a.svs",), "no annotated tumour"),
        (("a.svs", "x/a.tif", "a.xml"), "named alike"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    put(tmp_path, *names)
    with pytest.raises(SlideFolderError, match=reason):
        look(tmp_path)


# -- GeoJSON and masks ---------------------------------------------------------------------------------------------------


def geojson(path: Path, *features: dict[str, object]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", **f} for f in features]}))
    return path


def square(low: float, high: float) -> list[list[float]]:
    return [[low, low], [high, low], [high, high], [low, high], [low, low]]


def classed(name: str) -> dict[str, object]:
    return {"classification": {"name": name}}


def test_geojson_with_holes_islands_and_excluded_parts(tmp_path: Path) -> None:
    path = geojson(
        tmp_path / "a.geojson",
        {
            "geometry": {"type": "Polygon", "coordinates": [square(0, 800), square(200, 600)]},
            "properties": classed("Tumor"),
        },
        {"geometry": {"type": "MultiPolygon", "coordinates": [[square(300, 500)]]}, "properties": {}},
        {"geometry": {"type": "Polygon", "coordinates": [square(0, 80)]}, "properties": classed("Exclusion")},
        {"geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": classed("anything")},
    )
    mask = paint(read_geojson(path), rows=100, cols=100, cell_x0=8, cell_y0=8)
    assert not mask[4, 4]  # excluded
    assert mask[15, 15]
    assert not mask[30, 30]  # hole
    assert mask[50, 50]  # island in the hole
    part = paint(read_geojson(path), rows=20, cols=20, cell_x0=8, cell_y0=8, left0=320, top0=320)
    assert np.array_equal(part, mask[40:60, 40:60])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "not readable GeoJSON"),
        ("[" * 100_000, "not readable GeoJSON"),
        ('{"features": 1}', "no GeoJSON of features"),
        (json.dumps({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[["x", 1]]]}}), "broken coord"),
        (
            json.dumps(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [square(0, 1)]},
                    "properties": classed("Stroma"),
                }
            ),
            "unknown class 'Stroma'",
        ),
    ],
)
def test_a_wrong_geojson_is_refused_in_words(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(AnnotationError, match=reason):
        read_geojson(tmp_path / "a.geojson")


@pytest.mark.parametrize("value", [2, 255])
def test_windows_of_a_pyramidal_mask_agree_with_its_outline(tmp_path: Path, value: int) -> None:
    import pyvips

    grey = np.zeros((1500, 2000), np.uint8)
    grey[400:900, 600:1400] = value
    path = tmp_path / "a_mask.tif"
    image = pyvips.Image.new_from_array(grey)
    image.tiffsave(str(path), tile=True, pyramid=True, compression="deflate", region_shrink="nearest", subifd=False)
    assert mask_values(path) == {0, value}
    # the slide is twice as large as its mask
    mask = MaskFile(path, slide_width=4000, slide_height=3000, tumour_value=value)
    assert len(mask.levels) > 1
    for cell in (1.0, 4.0, 16.0):
        rows, cols = round(3000 / cell), round(4000 / cell)
        whole = mask.window(left0=0, top0=0, rows=rows, cols=cols, cell_x0=cell, cell_y0=cell)
        outline = np.zeros_like(whole)
        outline[round(800 / cell) : round(1800 / cell), round(1200 / cell) : round(2800 / cell)] = True
        assert (whole != outline).mean() < 0.02
    beyond = mask.window(left0=3900, top0=-100, rows=50, cols=100, cell_x0=4, cell_y0=4)
    assert not beyond.any()


def test_an_image_is_not_taken_for_a_mask(tmp_path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "a_mask.tif")
    with pytest.raises(AnnotationError, match="is no mask"):
        mask_values(tmp_path / "a_mask.tif")
