from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from analysis.errors import ModelRefused
from analysis.models_registry import activate_model, register_model, register_shipped


class Command(BaseCommand):
    help = "Registers a model version from a folder with weights.safetensors and model.json (without FOLDER: the shipped one)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", nargs="?", type=Path)
        parser.add_argument("--activate", action="store_true", help="New runs use it from now on.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["folder"] is None:
                version = register_shipped()
            else:
                version = register_model(folder=options["folder"], actor=None)
                if options["activate"]:
                    version = activate_model(model_version=version, actor=None)
        except ModelRefused as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{version}: {version.get_state_display()}, weights {version.sha256}")
