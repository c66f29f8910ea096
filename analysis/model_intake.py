"""Model versions that an administrator sends: the two files of a model folder, JSON and safetensors and nothing else."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from django.conf import settings

from accounts.models import User
from analysis.detector.card import CARD_NAME, WEIGHTS_NAME
from analysis.errors import ModelRefused, ModelTooLarge
from analysis.models import ModelVersion
from analysis.models_registry import checked_folder, name_of, record_refusal, register_model

CARD_MAX_BYTES = 2 * 2**20
INCOMING = ".incoming-"


class SentFile(Protocol):
    """An uploaded file of Django."""

    name: str | None
    size: int | None

    def chunks(self) -> Iterator[bytes]: ...


def register_upload(
    *, card: SentFile | None, weights: SentFile | None, actor: User, too_large: bool = False
) -> tuple[ModelVersion, bool]:
    """The registered version, and whether it is new: the same weights again change nothing.

    `too_large`: the form was cut off at the limit. Raises ModelRefused; then no file is kept, and the refusal is an event.
    """
    try:
        if too_large:
            raise ModelTooLarge(f"{_limit_words()} Nothing was kept.")
        if card is None or weights is None:
            raise ModelRefused(f"A model version has two files, {CARD_NAME} and {WEIGHTS_NAME}. Send both.")
        return _register(card=card, weights=weights, actor=actor)
    except ModelRefused as refusal:
        names = {
            "card": (card.name or "")[:200] if card else "",
            "weights": (weights.name or "")[:200] if weights else "",
        }
        record_refusal(act="register", reason=str(refusal), actor=actor, details={"files": names})
        raise


def _register(*, card: SentFile, weights: SentFile, actor: User) -> tuple[ModelVersion, bool]:
    _check_names_and_sizes(card, weights)
    home = Path(settings.METADET_HOME) / "models"
    incoming = home / f"{INCOMING}{uuid4().hex}"
    incoming.mkdir(parents=True)
    try:
        sha256 = _keep(weights.chunks(), incoming / WEIGHTS_NAME)
        _keep(card.chunks(), incoming / CARD_NAME)
        content = _checked(incoming)
        known = ModelVersion.objects.filter(sha256=sha256).first()
        if known is not None:
            return known, False
        _check_name_is_free(content)
        kept = home / sha256
        shutil.rmtree(kept, ignore_errors=True)  # left by an upload that died before it was registered
        os.rename(incoming, kept)
        return register_model(folder=kept, actor=actor, believe_card=False), True
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _check_names_and_sizes(card: SentFile, weights: SentFile) -> None:
    if not (weights.name or "").lower().endswith(".safetensors"):
        raise ModelRefused(
            f"{weights.name} is no safetensors file. Weights in other forms can carry programs and are never opened."
        )
    if not (card.name or "").lower().endswith(".json"):
        raise ModelRefused(f"{card.name} is no {CARD_NAME}.")
    if (card.size or 0) > CARD_MAX_BYTES:
        raise ModelTooLarge(f"The card is larger than {CARD_MAX_BYTES // 2**20} MB: it is no {CARD_NAME}.")
    if (weights.size or 0) > settings.MODEL_UPLOAD_MAX_BYTES:
        raise ModelTooLarge(_limit_words())


def _limit_words() -> str:
    return f"The weights are larger than the {settings.MODEL_UPLOAD_MAX_BYTES // 2**20} MB that are allowed here."


def _checked(folder: Path) -> dict[str, Any]:
    try:
        return checked_folder(folder)
    except ModelRefused as refusal:
        words = str(refusal).removeprefix(f"{folder.name}: ")
        raise ModelRefused(words[:1].upper() + words[1:]) from refusal


def _check_name_is_free(content: dict[str, Any]) -> None:
    """Runs name their model by name and version: two of one name could not be told apart on a page."""
    name, version = name_of(content), str(content["version"])
    if ModelVersion.objects.filter(name=name, version=version).exists():
        raise ModelRefused(
            f"There is a {name} {version} with other weights already. Give this one a version of its own."
        )


def _keep(chunks: Iterable[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
