import json
import os
import signal
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from slides.wsi import messages, sandbox, tile_store
from slides.wsi.errors import NoScale, RefusalCode, SlideRefused
from slides.wsi.sandbox import Limits

from .made_slides import difference, halved, spoil_tile, tissue_picture, write_jpeg_tiff, write_svs

PICTURE = tissue_picture(1500, 1100)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", PICTURE)


def refused(path: Path, places: tuple[Path, Path], **limits: float) -> SlideRefused:
    with pytest.raises(SlideRefused) as error:
        sandbox.prepare(path, places[0], associated_dir=places[1], limits=Limits(**limits))  # type: ignore[arg-type]
    return error.value


# --- files that are no slides ----------------------------------------------------------------------
def test_a_text_file_named_svs_is_refused(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.svs"
    path.write_text("Dear colleague, the slide is in the post.\n" * 50)
    assert refused(path, places).code is RefusalCode.NOT_A_SLIDE


def test_an_empty_file_is_refused(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.svs"
    path.touch()
    error = refused(path, places)
    assert error.code is RefusalCode.EMPTY
    assert "0 bytes" in error.message


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing"])
def test_what_is_no_file_is_refused(tmp_path: Path, places: tuple[Path, Path], kind: str) -> None:
    path = tmp_path / "slide.svs"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    assert refused(path, places).code is RefusalCode.NOT_A_SLIDE


def test_a_cut_slide_says_that_it_is_truncated(tmp_path: Path, slide: Path, places: tuple[Path, Path]) -> None:
    whole = slide.read_bytes()
    path = tmp_path / "slide.svs"
    path.write_bytes(whole[: len(whole) // 2])
    error = refused(path, places)
    assert error.code is RefusalCode.TRUNCATED
    assert f"truncated at byte {len(whole) // 2:,} of" in error.message


def test_sixteen_bits_are_refused(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE.astype(np.uint16) * 256, photometric="rgb", tile=(256, 256), metadata=None)
    error = refused(path, places)
    assert error.code is RefusalCode.SIXTEEN_BIT
    assert "16 bits" in error.message


def test_grey_channels_of_one_size_are_fluorescence(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.zeros((3, 300, 300), np.uint8), photometric="minisblack", metadata=None)
    assert refused(path, places).code is RefusalCode.NOT_BRIGHTFIELD


def test_a_mirax_index_without_its_folder_says_what_is_missing(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    assert refused(path, places).code in (RefusalCode.INCOMPLETE, RefusalCode.NOT_A_SLIDE)


@pytest.mark.parametrize("name", ["Präparat ½ 組織 🔬.svs", "-rf.svs", "a b'c\"d.svs", "." + "x" * 200 + ".svs"])
def test_any_file_name_will_do(tmp_path: Path, slide: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(slide.read_bytes())
    assert sandbox.describe(path).properties.width == 1500


# --- odd but usable slides ---------------------------------------------------------------------------
def test_a_slide_without_scale_is_ready_without_millimetres(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, mpp=None)
    prepared = sandbox.prepare(path, places[0], associated_dir=places[1])
    assert prepared.properties.scale_state == "missing"
    assert prepared.quality.tissue_mm2 is None
    assert prepared.quality.tissue_fraction > 0.05
    with sandbox.open_pixels(path) as pixels, pytest.raises(NoScale):
        pixels.read_at_mpp(0, 0, 8, 8, 2.0)
    with sandbox.open_pixels(path, mpp_override=(0.25, 0.25)) as pixels:
        assert pixels.read_at_mpp(0, 0, 8, 8, 2.0).rgb.shape == (8, 8, 3)


def test_a_wrong_unit_is_implausible_and_not_believed(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, mpp=0.0274)
    with sandbox.open_pixels(path) as pixels:
        assert pixels.properties.scale_state == "implausible"
        assert pixels.properties.mpp_x == pytest.approx(0.0274, rel=1e-3)
        assert pixels.mpp_x is None


@pytest.mark.parametrize(
    ("said", "mpp"), [("0.499", 0.499), ("0,499", 0.499), ("0", None), ("nan", None), ("-1", None)]
)
def test_the_scale_text_of_a_scanner_is_read_or_left(tmp_path: Path, said: str, mpp: float | None) -> None:
    properties = sandbox.describe(write_svs(tmp_path / "slide.svs", PICTURE, mpp=said)).properties
    assert properties.mpp_x == mpp
    assert properties.mpp_source == ("file:aperio.MPP" if mpp else "none")


def test_a_blank_slide_is_ready_with_no_tissue(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", np.full((900, 900, 3), 243, np.uint8))
    prepared = sandbox.prepare(path, places[0], associated_dir=places[1])
    assert (prepared.quality.tissue_mm2, prepared.quality.tissue_fraction) == (0.0, 0.0)


def test_label_and_macro_are_known_by_subfile_type_alone(tmp_path: Path, places: tuple[Path, Path]) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:  # as the GT450: no description says which is which
        file.write(PICTURE, photometric="rgb", compression="jpeg", tile=(256, 256), metadata=None)
        file.write(np.full((60, 50, 3), (10, 200, 10), np.uint8), photometric="rgb", subfiletype=1, metadata=None)
        file.write(np.full((40, 130, 3), (200, 10, 10), np.uint8), photometric="rgb", subfiletype=9, metadata=None)
    prepared = sandbox.prepare(path, places[0], associated_dir=places[1])
    assert set(prepared.associated) == {"label", "macro"}
    colours = {name: tuple(_png(image)[5, 5]) for name, image in prepared.associated.items()}
    assert colours == {"label": (10, 200, 10), "macro": (200, 10, 10)}


def _png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", None])
def test_ome_levels_in_child_directories_are_found(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        common = {"photometric": "rgb", "compression": compression, "tile": (256, 256)}
        metadata = {
            "axes": "YXS",
            "PhysicalSizeX": 250,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 250,
            "PhysicalSizeYUnit": "nm",
        }
        file.write(PICTURE, subifds=2, metadata=metadata, **common)
        file.write(halved(PICTURE), subfiletype=1, **common)
        file.write(halved(halved(PICTURE)), subfiletype=1, **common)
    with sandbox.open_pixels(path) as pixels:
        assert [level.downsample for level in pixels.properties.levels] == [1.0, 2.0, 4.0]
        assert pixels.mpp_x == pytest.approx(0.25)
        assert np.array_equal(pixels.read_at_mpp(0, 0, 750, 550, 0.5).rgb, halved(PICTURE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_read_upright(tmp_path: Path, orientation: int) -> None:
    import pyvips

    path = tmp_path / "slide.tif"
    picture = tissue_picture(300, 200)
    tifffile.imwrite(path, picture, photometric="rgb", compression="lzw", tile=(64, 64), metadata=None,
                     extratags=[(274, 3, 1, orientation, True)])  # fmt: skip
    upright = pyvips.Image.new_from_file(str(path)).autorot().numpy()
    with sandbox.open_pixels(path, mpp_override=(1.0, 1.0)) as pixels:
        assert (pixels.height, pixels.width) == upright.shape[:2]
        assert np.array_equal(pixels.read_at_mpp(20, 10, 100, 120, 1.0).rgb, upright[10:130, 20:120])


# --- pixels --------------------------------------------------------------------------------------------
def test_pixels_come_at_the_spacing_asked(slide: Path) -> None:
    with sandbox.open_pixels(slide) as pixels:
        assert (pixels.width, pixels.height, pixels.mpp_x) == (1500, 1100, 0.5)
        assert difference(pixels.read_at_mpp(256, 128, 200, 100, 1.0).rgb, halved(PICTURE)[64:164, 128:328]) < 2.5
        assert difference(pixels.read_at_mpp(256, 128, 200, 100, 0.5).rgb, PICTURE[128:228, 256:456]) < 2.5


def test_reading_ahead_gives_the_same_pixels_in_order(slide: Path) -> None:
    reads = [(float(x), float(y), 96, 64, 1.3) for y in range(-50, 1100, 170) for x in range(-50, 1500, 190)]
    with sandbox.open_pixels(slide, limits=Limits(ring_bytes=1)) as one_by_one:
        expected = [one_by_one.read_at_mpp(*read).rgb for read in reads]
    with sandbox.open_pixels(slide) as ahead:
        ahead.prefetch(iter(reads))
        for read, rgb in zip(reads, expected, strict=True):
            assert np.array_equal(ahead.read_at_mpp(*read).rgb, rgb)


def test_a_read_out_of_order_is_answered_too(slide: Path) -> None:
    reads = [(float(x), 0.0, 64, 64, 0.5) for x in range(0, 640, 64)]
    with sandbox.open_pixels(slide) as pixels:
        pixels.prefetch(reads)
        pixels.read_at_mpp(*reads[0])
        other = pixels.read_at_mpp(700, 700, 64, 64, 0.5)
        assert difference(other.rgb, PICTURE[700:764, 700:764]) < 3
        assert difference(pixels.read_at_mpp(*reads[1]).rgb, PICTURE[:64, 64:128]) < 3


def test_the_tile_store_gives_the_same_picture_as_the_file(slide: Path, tmp_path: Path) -> None:
    store, associated = tmp_path / "store", tmp_path / "associated"
    store.mkdir()
    associated.mkdir()
    sandbox.prepare(slide, store, associated_dir=associated)
    with sandbox.open_pixels(slide) as file, sandbox.open_pixels(slide, store=store) as ready:
        read = (100.0, 60.0, 200, 200, 2.0)
        assert difference(file.read_at_mpp(*read).rgb, ready.read_at_mpp(*read).rgb) < 2
        assert difference(file.thumbnail_at_mpp(8.0).rgb, ready.thumbnail_at_mpp(8.0).rgb) < 2


def test_a_bad_tile_is_failed_pixels_and_no_error(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    spoil_tile(path, 7, how="cut")
    with sandbox.open_pixels(path) as pixels:
        read = pixels.read_at_mpp(128, 128, 512, 512, 0.5)
    expected = np.zeros((512, 512), bool)
    expected[128:384, 128:384] = True
    assert np.array_equal(read.failed, expected)
    assert difference(read.rgb[:, 384:], PICTURE[128:640, 512:640]) < 2.5


@pytest.mark.parametrize("compression", ["deflate", "lzw"])
def test_a_bad_tile_of_a_format_read_by_openslide_stays_alone(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", compression=compression, tile=(256, 256), metadata=None)
    spoil_tile(path, 7, how="garbage")
    with sandbox.open_pixels(path, mpp_override=(0.5, 0.5)) as pixels:
        read = pixels.read_at_mpp(0, 0, 1500, 1100, 0.5)
    assert read.failed[256:512, 256:512].all()
    assert read.failed.sum() == 256 * 256
    assert np.array_equal(read.rgb[~read.failed], PICTURE[~read.failed])


# --- a child that goes wrong -------------------------------------------------------------------------
def children() -> list[int]:
    """Decoders of this process. It may have other children, such as the database of other tests."""
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in own if b"slides.wsi.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_killed_decoder_is_a_refusal_and_the_next_one_works(slide: Path) -> None:
    with sandbox.open_pixels(slide) as pixels:
        os.killpg(children()[-1], signal.SIGKILL)
        with pytest.raises(SlideRefused) as error:
            pixels.read_at_mpp(0, 0, 64, 64, 0.5)
        assert error.value.code is RefusalCode.DECODER_CRASHED
    with sandbox.open_pixels(slide) as pixels:
        assert pixels.read_at_mpp(0, 0, 64, 64, 0.5).rgb.shape == (64, 64, 3)


def test_a_hung_decoder_is_stopped(slide: Path) -> None:
    with sandbox.open_pixels(slide, limits=Limits(read_seconds=0.3)) as pixels:
        os.killpg(children()[-1], signal.SIGSTOP)
        with pytest.raises(SlideRefused) as error:
            pixels.read_at_mpp(0, 0, 64, 64, 0.5)
        assert error.value.code is RefusalCode.DECODER_TIMEOUT
    assert children() == []


def test_nothing_is_left_when_a_source_is_closed_early(slide: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with sandbox.open_pixels(slide) as pixels:
        pixels.prefetch([(0.0, 0.0, 500, 500, 0.5)] * 50)
    assert children() == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_picture_that_needs_too_much_memory_is_refused(tmp_path: Path, places: tuple[Path, Path]) -> None:
    side = 20_000
    path = tmp_path / "bomb.tif"
    bomb = zlib.compress(bytes(side * side * 3), 9)  # one strip: 1.2 GB from 1 MB
    tifffile.imwrite(path, iter([bomb]), shape=(side, side, 3), dtype=np.uint8, photometric="rgb",
                     compression="adobe_deflate", rowsperstrip=side, metadata=None)  # fmt: skip
    assert path.stat().st_size < 2 << 20
    assert refused(path, places, memory_bytes=1 << 30).code is RefusalCode.OUT_OF_MEMORY


def test_without_namespaces_slides_are_still_read(slide: Path, places: tuple[Path, Path]) -> None:
    prepared = sandbox.prepare(slide, places[0], associated_dir=places[1], limits=Limits(namespaces=False))
    assert prepared.properties.width == 1500


def test_a_dicom_file_among_others_is_read_without_namespaces(reference_slides: Path, tmp_path: Path) -> None:
    for name in ("highdicom_sm_image.dcm", "panimg_wsi_full_with_bot.dcm"):
        (tmp_path / name).write_bytes((reference_slides / name).read_bytes())
    (tmp_path / "notes.txt").write_text("not a slide")
    described = sandbox.describe(tmp_path / "highdicom_sm_image.dcm", limits=Limits(namespaces=False))
    assert described.properties.width == 50


def test_an_error_of_the_caller_while_preparing_ends_the_child(slide: Path, places: tuple[Path, Path]) -> None:
    class Cancelled(Exception): ...

    def cancel(stage: str, fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        sandbox.prepare(slide, places[0], associated_dir=places[1], on_progress=cancel)
    assert children() == []


# --- what a decoder that was taken over might write ------------------------------------------------
def _said(output: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((output / tile_store.INDEX_NAME).read_text())
    change(document)
    (output / tile_store.INDEX_NAME).write_text(json.dumps(document))


def _tiles(output: Path, field: str, value: int) -> None:
    records = np.load(output / tile_store.TILES_NAME)
    records[field][0] = value
    np.save(output / tile_store.TILES_NAME, records)


def _linked_colours(output: Path) -> None:
    (output / "elsewhere").write_bytes(bytes(tile_store.COLOUR_BYTES))
    (output / tile_store.COLOUR_NAME).unlink(missing_ok=True)
    (output / tile_store.COLOUR_NAME).symlink_to(output / "elsewhere")
    _said(output, lambda it: it.update(colour={"profile": "x", "changes": True}))


@pytest.mark.parametrize(
    "harm",
    [
        lambda output: (output / tile_store.INDEX_NAME).write_text("[" * 100_000),
        lambda output: (output / tile_store.INDEX_NAME).write_text("[]"),
        lambda output: _said(output, lambda it: it["levels"][0].update(tile_width=0)),
        lambda output: _said(output, lambda it: it["levels"][0].update(width="wide")),
        lambda output: _said(output, lambda it: it["levels"][0].update(first_tile=-1)),
        lambda output: _said(output, lambda it: it.update(files=None)),
        lambda output: _said(output, lambda it: it.update(placeholders={"256": [0, 1]})),
        lambda output: _said(output, lambda it: it.pop("background")),
        lambda output: _said(output, lambda it: it.update(colour={"profile": "x", "changes": True})),
        lambda output: (
            (output / tile_store.COLOUR_NAME).write_bytes(b"short")
            and _said(output, lambda it: it.update(colour={"profile": "x", "changes": True}))
        ),
        _linked_colours,
        lambda output: (output / tile_store.TILES_NAME).write_bytes(b"\x93NUMPY\x01\x00\xff\xff"),
        lambda output: np.save(output / tile_store.TILES_NAME, np.zeros(3)),
        lambda output: _tiles(output, "offset", 2**62),
        lambda output: _tiles(output, "length", 2**31),
        lambda output: _tiles(output, "file", 3),
        lambda output: _tiles(output, "header", 60_000),
    ],
)
def test_a_store_that_makes_no_sense_is_a_crash_of_the_decoder(
    slide: Path, places: tuple[Path, Path], harm: Callable[[Path], object]
) -> None:
    made = sandbox.prepare(slide, places[0], associated_dir=places[1])
    sandbox.finish_store(slide, places[0], made.store.kind)
    harm(places[0])
    with pytest.raises(SlideRefused) as error:
        sandbox.finish_store(slide, places[0], made.store.kind)
    assert error.value.code is RefusalCode.DECODER_CRASHED


def test_a_slide_that_went_away_meanwhile_is_not_the_decoders_fault(tmp_path: Path, places: tuple[Path, Path]) -> None:
    slide = write_svs(tmp_path / "gone.svs", PICTURE)
    made = sandbox.prepare(slide, places[0], associated_dir=places[1])
    slide.unlink()
    with pytest.raises(SlideRefused, match="not there"):
        sandbox.finish_store(slide, places[0], made.store.kind)


@pytest.mark.parametrize("said", [b"[" * 100_000, b"[]", b"{", b"\xff\xfe"])
def test_an_answer_that_makes_no_sense_is_a_bad_message(said: bytes) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as answers, ThreadPoolExecutor() as pool:
        received = pool.submit(messages.receive, answers.fileno())
        with open(writing, "wb") as decoder:
            decoder.write(struct.pack("<I", len(said)) + said)
        with pytest.raises(messages.BadMessage):
            received.result()


def test_the_name_in_the_headers_of_tiles_is_not_the_decoders(slide: Path, places: tuple[Path, Path]) -> None:
    made = sandbox.prepare(slide, places[0], associated_dir=places[1])
    with tile_store.TileStore.load(places[0]) as store:
        etag = store.tile(0, 0, 0).etag
    _said(places[0], lambda it: it.update(store_id="x\r\nSet-Cookie: a=b"))
    sandbox.finish_store(slide, places[0], made.store.kind)
    with tile_store.TileStore.load(places[0]) as store:
        assert store.tile(0, 0, 0).etag == etag


def test_what_is_said_of_colours_is_a_name_and_a_yes_or_no(slide: Path, places: tuple[Path, Path]) -> None:
    made = sandbox.prepare(slide, places[0], associated_dir=places[1])
    (places[0] / tile_store.COLOUR_NAME).write_bytes(bytes(tile_store.COLOUR_BYTES))
    _said(places[0], lambda it: it.update(colour={"profile": ["<b>"] * 99, "changes": "no", "more": 1}))
    sandbox.finish_store(slide, places[0], made.store.kind)
    colour = json.loads((places[0] / tile_store.INDEX_NAME).read_text())["colour"]
    assert colour == {"profile": str(["<b>"] * 99)[:100], "changes": True}


def test_the_report_says_how_decoding_is_closed_off() -> None:
    report = sandbox.isolation_report()
    assert any("limits on memory" in line for line in report)
