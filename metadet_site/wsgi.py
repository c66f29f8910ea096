"""The one callable of the web process: /tiles/ goes to the tile service before Django's middleware, the rest to Django."""

import os
import resource
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "metadet_site.settings")
django_application = get_wsgi_application()

from metadet_site.dead_peers import notice_dead_peers  # noqa: E402  (needs the settings loaded)
from slides.tile_service import tile_application  # noqa: E402

StartResponse = Callable[..., Any]
OPEN_FILES = 16_384


def _allow_many_connections() -> None:
    """Every browser keeps six connections open, each one an open file; a usual soft limit is 1,024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


_allow_many_connections()


def _let_requests_gather() -> None:
    """Who is woken does not interrupt who runs (sched(7), SCHED_BATCH): else each request costs four changes between the
    server's own thread and those of Python, a third of a tile's price (measured: benchmarks/tiles.py)."""
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):  # a container may forbid it
        for thread in os.listdir("/proc/self/task"):  # those that are there; others have it from who starts them
            os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


_let_requests_gather()


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    if environ.get("PATH_INFO", "").startswith("/tiles/"):
        return tile_application(environ, start_response)
    notice_dead_peers()
    return django_application(environ, start_response)
