import struct
from pathlib import Path

import pytest

from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.tiff_walk import walk

from .made_slides import tiff_of_directories, tissue_picture, write_jpeg_tiff

LONG, SHORT = 4, 3


def image(width: int = 16, height: int = 16, **more: int) -> list[tuple[int, int, int, int]]:
    entries = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: height, 279: 8}
    entries |= {int(tag): value for tag, value in more.items()}
    return [(tag, LONG, 1, value) for tag, value in sorted(entries.items())]


def refusal(tmp_path: Path, data: bytes) -> SlideRefused:
    path = tmp_path / "slide.svs"
    path.write_bytes(data)
    with pytest.raises(SlideRefused) as refused:
        walk(path)
    return refused.value


def test_a_directory_that_follows_itself_is_refused(tmp_path: Path) -> None:
    refused = refusal(tmp_path, tiff_of_directories((16, image(), 16)))
    assert refused.code is RefusalCode.DAMAGED_STRUCTURE
    assert "circle" in refused.message


def test_a_loop_over_two_directories_is_refused(tmp_path: Path) -> None:
    refused = refusal(tmp_path, tiff_of_directories((16, image(), 400), (400, image(), 16)))
    assert refused.code is RefusalCode.DAMAGED_STRUCTURE


def test_a_child_directory_that_is_its_parent_is_refused(tmp_path: Path) -> None:
    refused = refusal(tmp_path, tiff_of_directories((16, image(**{"330": 16}), 0)))
    assert refused.code is RefusalCode.DAMAGED_STRUCTURE


def test_fourteen_bytes_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"II*\0\x08\0\0\0\x01\0\0\0\0\0").code in (
        RefusalCode.TRUNCATED,
        RefusalCode.DAMAGED_STRUCTURE,
    )


def test_more_than_512_images_are_refused(tmp_path: Path) -> None:
    step = 130
    chain = [(16 + step * n, image(), 16 + step * (n + 1)) for n in range(600)]
    chain[-1] = (chain[-1][0], image(), 0)
    assert "512" in refusal(tmp_path, tiff_of_directories(*chain)).message


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (2**20, 2**18)])
def test_more_pixels_than_any_scanner_makes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    refused = refusal(tmp_path, tiff_of_directories((16, image(*size), 0)))
    assert refused.code is RefusalCode.TOO_LARGE


def test_a_tag_of_gigabytes_is_refused(tmp_path: Path) -> None:
    entries = sorted([*image(), (347, 7, 2**31, 8)])
    assert refusal(tmp_path, tiff_of_directories((16, entries, 0))).code is RefusalCode.DAMAGED_STRUCTURE


def test_a_huge_tile_is_refused(tmp_path: Path) -> None:
    entries = image(**{"322": 60000, "323": 60000, "324": 8, "325": 8})
    assert refusal(tmp_path, tiff_of_directories((16, entries, 0))).code is RefusalCode.TOO_LARGE


def test_a_tile_list_that_is_too_short_is_refused(tmp_path: Path) -> None:
    entries = image(5000, 5000, **{"322": 256, "323": 256, "324": 8, "325": 8})
    assert refusal(tmp_path, tiff_of_directories((16, entries, 0))).code is RefusalCode.DAMAGED_STRUCTURE


def test_a_cut_file_says_where_it_ends(tmp_path: Path) -> None:
    whole = write_jpeg_tiff(tmp_path / "whole.tif", tissue_picture(1024, 768)).read_bytes()
    for share in (0.1, 0.5, 0.95):
        cut = whole[: int(len(whole) * share)]
        refused = refusal(tmp_path, cut)
        assert refused.code is RefusalCode.TRUNCATED
        assert f"truncated at byte {len(cut):,} of at least" in refused.message


def test_every_cut_is_refused_and_nothing_else_escapes(tmp_path: Path) -> None:
    whole = write_jpeg_tiff(tmp_path / "whole.tif", tissue_picture(300, 300)).read_bytes()
    for length in range(8, len(whole) - 1, 97):
        assert refusal(tmp_path, whole[:length]).code in (RefusalCode.TRUNCATED, RefusalCode.DAMAGED_STRUCTURE)


def test_a_big_tiff_is_walked(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    entries = [(tag, LONG, 1, value) for tag, _, _, value in image()]
    table = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    path.write_bytes(
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(entries)) + table + struct.pack("<Q", 0)
    )
    layout = walk(path)
    assert layout.big
    assert [(each.width, each.height) for each in layout.main] == [(16, 16)]
