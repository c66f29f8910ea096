"""The tile stores this process has open: loaded once, used by many requests, closed when long unused."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from django.conf import settings

from slides.wsi.tile_store import TileStore

MOST_OPEN = 200


class _OpenStore(TileStore):
    """Another thread may be reading when a store is let go: its files close with the last reference to it."""

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):
            self.close()


_open: OrderedDict[tuple[Path, str, str], TileStore] = OrderedDict()
_lock = threading.Lock()


def opened(slide_id: str, store: str) -> TileStore:
    """Raises TileStoreDamaged, or SourceChanged, when the store cannot be used. The names must come from a checked source."""
    home = Path(settings.METADET_HOME)
    key = (home, slide_id, store)
    with _lock:
        if (found := _open.get(key)) is not None:
            _open.move_to_end(key)
            return found
    loaded = _OpenStore.load(home / "slides" / slide_id / store)
    with _lock:
        found = _open.setdefault(key, loaded)
        while len(_open) > MOST_OPEN:
            _open.popitem(last=False)
    return found


def forget(slide_id: str) -> None:
    """Lets go of a deleted slide's stores, so that the disk gets its space back."""
    with _lock:
        for key in [key for key in _open if key[1] == slide_id]:
            del _open[key]


def descriptor(store: TileStore, *, mpp_x: float | None, mpp_y: float | None) -> dict[str, Any]:
    """The store's descriptor with the slide's own scale, which an operator may have corrected."""
    return store.descriptor() | {"mpp_x": mpp_x, "mpp_y": mpp_y}
