import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from slides.wsi.errors import SlideRefused
from slides.wsi.sandbox import Description, describe


class Command(BaseCommand):
    help = "Says what a slide file is, what it would become here and why. Writes nothing. Exit code 1 if it is refused."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(f"There is no file {path}.")
        try:
            found = describe(path)
        except SlideRefused as refused:
            answer = {"file": path.name, "verdict": "quarantined", "code": str(refused.code), "reason": refused.message}
            self.stdout.write(json.dumps(answer) if options["json"] else f"Refused ({refused.code}): {refused.message}")
            raise SystemExit(1) from refused
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(path, found)))
        else:
            self._say(path, found)

    def _say(self, path: Path, found: Description) -> None:
        slide = found.properties
        scale = f"{slide.mpp_x:.4f} x {slide.mpp_y:.4f} um per pixel" if slide.mpp_x and slide.mpp_y else "no scale"
        self.stdout.write(f"{path.name}: {slide.format}, {slide.width:,} x {slide.height:,} pixels")
        self.stdout.write(f"Scale: {scale}, {slide.scale_state} (from {slide.mpp_source})")
        if slide.scale_state != "ok":
            self.stdout.write("Viewable, but nothing is measured or detected until an operator enters the scale.")
        for level in slide.levels:
            self.stdout.write(
                f"  level {level.index}: {level.width:,} x {level.height:,}, 1/{level.downsample:g}, "
                f"tiles {level.tile_width} x {level.tile_height}"
            )
        how = "" if found.store.kind == "pass_through" else "converted once, because "
        self.stdout.write(f"Tiles: {how}{found.store.reason}.")
        if slide.associated:
            self.stdout.write(f"Associated images: {', '.join(slide.associated)}")


def _as_json(path: Path, found: Description) -> dict[str, Any]:
    return {
        "file": path.name,
        "verdict": "ready",
        "properties": found.properties.to_json(),
        "tiles": {
            "kind": found.store.kind,
            "reason": found.store.reason,
            "side_pyramid": found.store.side_pyramid,
        },
    }
