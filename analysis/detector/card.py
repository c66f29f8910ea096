"""The card of a model version, read without torch: the web process shows it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from analysis.detector.calibration import CalibrationDamaged, calibrations_of
from analysis.detector.drift import valid_reference

WEIGHTS_NAME = "weights.safetensors"
CARD_NAME = "model.json"
FORMAT = 1
MODELS_FOLDER = Path(__file__).resolve().parent / "models"


class ModelRefused(ValueError):
    """The model folder cannot be trusted or read; the message says why in words."""


def read_card(folder: Path) -> dict[str, Any]:
    """The content of model.json: format, version, sha256 (of the weights), config, card."""
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ModelRefused(f"{folder.name}: the model card {CARD_NAME} cannot be read") from problem
    except (ValueError, RecursionError) as problem:
        raise ModelRefused(f"{folder.name}: {CARD_NAME} is damaged ({problem})") from problem
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelRefused(f"{folder.name}: {CARD_NAME} is not of format {FORMAT}")
    missing = [key for key in ("version", "sha256", "config", "card") if key not in card]
    if missing:
        raise ModelRefused(f"{folder.name}: {CARD_NAME} lacks {', '.join(missing)}")
    if not isinstance(card["card"], dict) or not isinstance(card["config"], dict):
        raise ModelRefused(f"{folder.name}: card and config of {CARD_NAME} must be tables")
    try:
        calibrations_of(card["card"], weights_sha256=str(card["sha256"]))
    except CalibrationDamaged as problem:
        raise ModelRefused(f"{folder.name}: {problem}") from problem
    references = card["card"].get("drift_reference") or {}
    if not isinstance(references, dict) or not all(valid_reference(one) for one in references.values()):
        raise ModelRefused(f"{folder.name}: the drift reference of the card is damaged")
    return card


def verify_weights(folder: Path) -> dict[str, Any]:
    """The card, after the weights' SHA-256 was found to be the one it names."""
    card = read_card(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ModelRefused(f"{folder.name}: the weights {WEIGHTS_NAME} are missing")
    if file_sha256(path) != card["sha256"]:
        raise ModelRefused(
            f"{folder.name}: the weights are not those of the card (SHA-256 differs); get the folder again"
        )
    return card


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def shipped_models() -> list[Path]:
    """Folders of the model versions that come with the product, newest last by name."""
    return sorted(p.parent for p in MODELS_FOLDER.glob(f"*/{CARD_NAME}"))


def default_model_folder() -> Path:
    models = shipped_models()
    if not models:
        raise ModelRefused("no model version is shipped; train one with python -m analysis.detector.train")
    return models[-1]
