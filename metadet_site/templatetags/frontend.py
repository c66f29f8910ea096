"""Tags that put the built front end into a page: `{% frontend 'viewer' %}`."""

import json
from pathlib import Path
from typing import Any

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()
_manifests: dict[Path, tuple[int, dict[str, Any]]] = {}


class FrontEndNotBuilt(RuntimeError):
    """frontend/dist lacks the manifest or the entry; the message says how to build it."""


def read_manifest(dist: Path) -> dict[str, Any]:
    """Vite's manifest, read again only when a new build replaced it."""
    path = dist / ".vite" / "manifest.json"
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError as error:
        raise FrontEndNotBuilt(
            "The front end is not built: run `make run`, or `npm ci && npm run build` in frontend/."
        ) from error
    kept = _manifests.get(dist)
    if kept is None or kept[0] != changed:
        kept = (changed, json.loads(path.read_text()))
        _manifests[dist] = kept
    return kept[1]


def files_of(manifest: dict[str, Any], name: str) -> tuple[str, list[str], list[str]]:
    """Script, stylesheets and further chunks of the entry `name`; styles of a shared chunk come before the entry's own."""
    entry = next((chunk for chunk in manifest.values() if chunk.get("isEntry") and chunk.get("name") == name), None)
    if entry is None:
        raise FrontEndNotBuilt(
            f"The front end has no entry {name!r}: build it again with `npm run build` in frontend/."
        )
    styles: list[str] = []
    chunks: list[str] = []
    for key in entry.get("imports", []):
        chunk = manifest[key]
        chunks.append(chunk["file"])
        styles.extend(chunk.get("css", []))
    styles.extend(entry.get("css", []))
    return entry["file"], list(dict.fromkeys(styles)), chunks


@register.simple_tag
def frontend(name: str) -> SafeString:
    """Style links, preloads and the module script of one entry."""
    script, styles, chunks = files_of(read_manifest(settings.FRONTEND_DIST), name)
    lines = [format_html('<link rel="stylesheet" href="{}">', _url(file)) for file in styles]
    lines += [format_html('<link rel="modulepreload" href="{}">', _url(file)) for file in chunks]
    lines.append(format_html('<script type="module" src="{}"></script>', _url(script)))
    return format_html_join("\n", "{}", ((line,) for line in lines))


def _url(file: str) -> str:
    return static(f"frontend/{file}")
