"""The one canonical text form that hashes and signatures cover.

JSON with sorted keys, no spaces, UTF-8, NFC strings, no NaN, floats by Python's shortest round-trip repr. It is made here
and stored as text, because jsonb does not keep the bytes it was given.
"""

import json
import unicodedata
from typing import Any


def canonical_json(value: Any) -> str:
    """Raises ValueError for NaN or infinity, TypeError for what JSON cannot say."""
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {_normal(str(key)): _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return value
