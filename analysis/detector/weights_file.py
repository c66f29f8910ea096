"""What a safetensors file says of itself, read with the standard library alone: the web process checks it and loads nothing."""

import json
import math
import struct
from pathlib import Path
from typing import Any

from analysis.detector.card import ModelRefused

_LARGEST_HEADER = 16 << 20
_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def check_safetensors(path: Path) -> int:
    """The number of tensors. Raises ModelRefused for what is no whole safetensors file.

    Format: 8 bytes of header length (little endian), the header as JSON, then the tensors without a gap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ModelRefused("the weights are no safetensors file")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        spans = sorted(_span(name, entry) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise ModelRefused("the weights are no safetensors file: their header is damaged") from problem
    end = 0
    for first, last in spans:
        if first != end or last < first:
            raise ModelRefused("the weights are damaged: their tensors do not lie one after another")
        end = last
    if not spans or 8 + length + end != size:
        raise ModelRefused("the weights are cut off or have something behind them")
    return len(spans)


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int]:
    first, last = (int(offset) for offset in entry["data_offsets"])
    cells = math.prod(int(side) for side in entry["shape"])
    if last - first != cells * _BYTES_OF[entry["dtype"]]:
        raise ValueError(name)
    return first, last
