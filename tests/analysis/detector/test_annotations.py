from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from analysis.detector.annotations import AnnotationError, paint, read_asap, write_asap


def test_outlines_and_holes_come_back(tmp_path: Path) -> None:
    ring = Polygon([(0, 0), (400, 0), (400, 400), (0, 400)], holes=[[(100, 100), (300, 100), (300, 300), (100, 300)]])
    write_asap(tmp_path / "a.xml", [ring, box(600, 600, 700, 700)])
    mask = paint(read_asap(tmp_path / "a.xml"), rows=100, cols=100, cell_x0=8, cell_y0=8)
    assert mask.sum() * 64 == pytest.approx(400**2 - 200**2 + 100**2, rel=0.06)
    assert not mask[25, 25]
    assert mask[5, 5]
    assert mask[81, 81]


def test_camelyon17_groups_and_order_of_points_are_understood(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text(
        '<ASAP_Annotations><Annotations><Annotation PartOfGroup="metastases"><Coordinates>'
        '<Coordinate Order="2" X="10" Y="10"/><Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="10" Y="0"/>'
        "</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    (annotation,) = read_asap(tmp_path / "b.xml")
    assert annotation.tumour
    assert np.array_equal(annotation.ring, [[0, 0], [10, 0], [10, 10]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no xml", "not readable XML"),
        ('<a><Annotation PartOfGroup="stroma"/></a>', "unknown annotation group 'stroma'"),
        ('<a><Annotation PartOfGroup="_0"><Coordinate Order="0" X="x" Y="1"/></Annotation></a>', "is no number"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "not readable XML"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "c.xml").write_text(text)
    with pytest.raises(AnnotationError, match=reason):
        read_asap(tmp_path / "c.xml")
