from collections.abc import Callable, Iterable
from typing import Any


def tile_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b""]
