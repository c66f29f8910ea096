import imagecodecs
import numpy as np
import pytest
import simplejpeg

from slides.wsi.jpeg_stream import APP14_RGB, NotJpeg, parse_frame, splice_header, split_tables

from .made_slides import decoded, difference, tissue_picture


def jpeg(**more: object) -> bytes:
    return bytes(simplejpeg.encode_jpeg(tissue_picture(64, 48), quality=90, colorspace="RGB", **more))


def test_tables_split_off_and_spliced_in_again_give_the_same_pixels() -> None:
    whole = jpeg()
    tables, tile = split_tables(whole)
    body = tile[parse_frame(tile).body_start :]
    rebuilt = splice_header(tables, rgb=False) + body
    assert np.array_equal(decoded(rebuilt), decoded(whole))
    assert b"JFIF" not in rebuilt
    assert len(tile) < len(whole) - 400


def rgb_jpeg_of_a_scanner(picture: np.ndarray) -> bytes:
    """Colours stored as RGB under component numbers 1, 2, 3 and without any marker, as Aperio does."""
    data = bytes(imagecodecs.jpeg8_encode(picture, level=95, colorspace="rgb", outcolorspace="rgb"))
    data = data.replace(b"\x03R\x11\x00G\x11\x00B\x11\x00", b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00")
    return data.replace(b"\x03R\x00G\x00B\x00", b"\x03\x01\x00\x02\x00\x03\x00")


def test_rgb_streams_are_marked_as_rgb() -> None:
    picture = tissue_picture(64, 48)
    tables, tile = split_tables(rgb_jpeg_of_a_scanner(picture))
    body = tile[parse_frame(tile).body_start :]
    assert difference(decoded(splice_header(tables, rgb=False) + body), picture) > 20  # taken for YCbCr: pink
    marked = splice_header(tables, rgb=True) + body
    assert APP14_RGB in marked
    assert difference(decoded(marked), picture) < 3


def test_the_frame_header_is_read() -> None:
    frame = parse_frame(jpeg())
    assert (frame.width, frame.height, frame.components, frame.bits, frame.baseline) == (64, 48, 3, 8, True)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"II*\0", b"\xff\xd8\xff\xc0\x00\x04\x08\x00", b"\xff\xd8" + b"\xff" * 50],
)
def test_broken_headers_are_named_not_guessed(data: bytes) -> None:
    with pytest.raises(NotJpeg):
        parse_frame(data)
