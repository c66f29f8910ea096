"""docs/reference/formats.md: which reader opens what kind of file, and whether its tiles are served as they are.

`python -m tests.slides.corpus.formats` writes it; the reference data must be there for its second table.
"""

import sys
import tempfile
from pathlib import Path

from slides.wsi.check import READY, describe_in_words

from .bases import BASES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "formats.md"
_HEAD = "| {first} | opened by | levels | um per pixel | tiles | why |\n|---|---|---|---|---|---|\n"
_INTRODUCTION = """# Slide formats

Made by `python -m tests.slides.corpus.formats` from what the product says of each file (`manage.py check_slide` says the
same of any file). *As they are*: the file's own JPEG tiles are sent to the browser. *Converted*: a pyramid of JPEG tiles is
made once, from the untouched file. What no reader takes is refused with the reason.

Readers are asked in this order: OpenSlide, the own TIFF reader (flat and striped TIFF, OME-TIFF with SubIFDs, compressions
OpenSlide does not know), large_image with whatever sources are installed.
"""
_MADE = """
## Layouts of scanners and converters
Small files made for the tests (`tests/slides/corpus/bases.py`), one for each layout.

"""
_REFERENCE = """
## Files of other projects
The reference slides named in the README of the reference data.

"""
_IN_WORDS = {
    "tiff-jpeg": "tiled JPEG pyramid (CAMELYON17)",
    "tiff-jpeg-own-tables": "tiled JPEG pyramid, tables in each tile",
    "tiff-jpeg-padded": "tiled JPEG pyramid, levels padded to whole tiles (CAMELYON16)",
    "svs": "Aperio SVS, RGB JPEG",
    "svs-ycbcr": "Aperio SVS, YCbCr JPEG",
    "svs-jp2k-33003": "Aperio SVS, JPEG 2000 (33003, YCbCr)",
    "svs-jp2k-33005": "Aperio SVS, JPEG 2000 (33005, RGB)",
    "ome-tiff-jpeg": "OME-TIFF with SubIFDs, JPEG",
    "ome-tiff-deflate": "OME-TIFF with SubIFDs, deflate",
    "philips": "Philips TIFF",
    "ndpi": "Hamamatsu NDPI",
    "vms": "Hamamatsu VMS",
    "scn": "Leica SCN",
    "bif": "Ventana BIF",
    "mrxs": "3DHISTECH MIRAX (MRXS)",
    "dicom": "DICOM, one file, JPEG",
    "dicom-raw": "DICOM, one file, uncompressed",
    "dicom-series": "DICOM, folder of one series",
    "png": "PNG picture",
    "jpeg": "JPEG picture",
    "jp2": "JPEG 2000 picture",
}


def made_table() -> str:
    rows = []
    for name, make in BASES.items():
        if name == "nothing":
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_row(_IN_WORDS.get(name, name.replace("-", " ")), make(Path(folder))))
    return _MADE + _HEAD.format(first="layout") + "".join(rows)


def reference_table(folder: Path) -> str:
    rows = [_row(f"`{path.name}`", path) for path in sorted(folder.iterdir())]
    return _REFERENCE + _HEAD.format(first="file") + "".join(rows)


def _row(name: str, path: Path) -> str:
    found = describe_in_words(path)
    if found["state"] != READY:
        return f"| {name} | refused | | | | {found['code']}: {found['reason']} |\n"
    levels = ", ".join(f"{level['downsample']:.3g}" for level in found["levels"])
    scale = f"{found['mpp_x']:.3g} x {found['mpp_y']:.3g}" if found["mpp_x"] and found["mpp_y"] else "none"
    if found["scale_state"] == "implausible":
        scale += " (not believed)"
    tiles = "as they are" if found["tiles"] == "pass_through" else "converted"
    vendor = f" ({found['format']})" if found["opened_by"] == "OpenSlide" else ""
    return f"| {name} | {found['opened_by']}{vendor} | {levels} | {scale} | {tiles} | {found['tiles_reason']} |\n"


def main() -> None:
    reference = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parents[3] / "shared" / "data" / "slides"
    if not reference.is_dir():
        raise SystemExit(f"The reference slides are not in {reference}. Name their folder.")
    PAGE.write_text(_INTRODUCTION + made_table() + reference_table(reference), "utf-8")


if __name__ == "__main__":
    main()
