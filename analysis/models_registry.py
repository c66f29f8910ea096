"""Model versions: registering a folder of weights and card, and choosing the active one."""

import math
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from accounts.models import User
from analysis.detector.card import WEIGHTS_NAME, default_model_folder, file_sha256, verify_weights
from analysis.detector.card import ModelRefused as CardRefused
from analysis.detector.configuration import ConfigurationError, config_of_card
from analysis.detector.weights_file import check_safetensors
from analysis.enums import ModelState
from analysis.errors import ModelRefused, NoActiveModel, NotActive, NotEvaluated
from analysis.models import ModelVersion
from audit_trail.enums import EventKind, Outcome
from audit_trail.recording import record

DEFAULT_THRESHOLD = 0.5


# --- registering -----------------------------------------------------------------------------------
def register_model(*, folder: Path, actor: User | None, believe_card: bool = True) -> ModelVersion:
    """The model version of `folder`; registering the same weights again changes nothing. Raises ModelRefused.

    `believe_card`: an evaluation in the card counts as one when it names exactly these weights. That is for the shipped
    model and for whoever commands the server; what comes in through the web is evaluated here first.
    """
    content = checked_folder(folder)
    card = content["card"]
    with transaction.atomic():
        model_version, made = ModelVersion.objects.get_or_create(
            sha256=content["sha256"],
            defaults={
                "name": name_of(content),
                "version": str(content["version"]),
                "folder": _relative_to_code(folder),
                "card": card,
                "threshold": float(card.get("threshold", DEFAULT_THRESHOLD)),
            },
        )
        if not made:
            return model_version
        if believe_card and model_version.card_evaluates_these_weights:
            model_version.state = ModelState.EVALUATED
            model_version.save(update_fields=["state"])
        record(EventKind.MODEL_REGISTERED, actor=actor, subject=model_version, details=facts_of(model_version))
    return model_version


def name_of(content: dict[str, Any]) -> str:
    return str(content["card"].get("name", content["config"].get("name", "detector")))[:60]


def checked_folder(folder: Path) -> dict[str, Any]:
    """The content of the card, of which every field that is used is what it should be. Raises ModelRefused."""
    try:
        content = verify_weights(folder)
        check_safetensors(folder / WEIGHTS_NAME)
        config_of_card(content["config"])
    except CardRefused as error:
        raise ModelRefused(str(error)) from error
    except ConfigurationError as error:
        raise ModelRefused(f"{folder.name}: this version of metadet has no such network ({error})") from error
    if not 1 <= len(str(content["version"])) <= 40:
        raise ModelRefused(f"{folder.name}: the version must have 1 to 40 characters")
    threshold = content["card"].get("threshold", DEFAULT_THRESHOLD)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ModelRefused(f"{folder.name}: the threshold of the card must lie between 0 and 1")
    if not isinstance(content["card"].get("evaluation") or {}, dict):
        raise ModelRefused(f"{folder.name}: the evaluation of the card must be a table")
    if not _storable(content):
        raise ModelRefused(f"{folder.name}: the card holds what is no number or no text")
    return content


def _storable(value: Any) -> bool:
    """PostgreSQL keeps neither NaN nor the zero character nor half a character."""
    if isinstance(value, dict):
        return all(_storable(key) and _storable(one) for key, one in value.items())
    if isinstance(value, list):
        return all(_storable(one) for one in value)
    if isinstance(value, str):
        return "\x00" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    return not isinstance(value, float) or math.isfinite(value)


# --- choosing --------------------------------------------------------------------------------------
def activate_model(*, model_version: ModelVersion, actor: User | None) -> ModelVersion:
    """Makes it the one that new runs use; runs made before keep theirs. A retired version can come back.

    Raises NotEvaluated and, for weights that are not those registered, ModelRefused; a refusal is an event too.
    """
    try:
        _check_may_be_active(model_version)
        return _activate(model_version=model_version, actor=actor)
    except ModelRefused as refusal:
        record_refusal(act="activate", reason=str(refusal), actor=actor, model_version=model_version)
        raise


def _check_may_be_active(model_version: ModelVersion) -> None:
    """The weights on disk are hashed here, outside of any transaction."""
    weights = model_version.path / WEIGHTS_NAME
    try:
        kept = file_sha256(weights)
    except OSError as error:
        raise ModelRefused(f"The weights of {model_version} are gone from the server: it cannot be used.") from error
    if kept != model_version.sha256:
        raise ModelRefused(f"The weights of {model_version} on the server are not those that were registered.")


@transaction.atomic
def _activate(*, model_version: ModelVersion, actor: User | None) -> ModelVersion:
    versions = {one.pk: one for one in ModelVersion.objects.select_for_update().order_by("pk")}
    model_version = versions[model_version.pk]
    if model_version.state == ModelState.ACTIVE:
        return model_version
    if not is_evaluated(model_version):
        raise NotEvaluated(
            f"{model_version} was not evaluated here. Evaluate it on a set with known lesions first, then activate it."
        )
    for before in versions.values():
        if before.state == ModelState.ACTIVE:
            _retire(before, actor=actor)
    model_version.state = ModelState.ACTIVE
    model_version.activated_at = Now()
    model_version.save(update_fields=["state", "activated_at"])
    record(EventKind.MODEL_ACTIVATED, actor=actor, subject=model_version, details=facts_of(model_version))
    model_version.refresh_from_db()
    return model_version


def is_evaluated(model_version: ModelVersion) -> bool:
    """There is a finished evaluation of exactly these weights: made here, or in the card of a version that is believed.

    A version whose card is not believed stays registered until an evaluation made here has ended.
    """
    if model_version.state == ModelState.REGISTERED:
        return False
    made_here = model_version.evaluations.filter(weights_sha256=model_version.sha256).exists()
    return made_here or model_version.card_evaluates_these_weights


@transaction.atomic
def deactivate_model(*, model_version: ModelVersion, actor: User | None) -> ModelVersion:
    """Takes it out of use without another in its place: no detection starts until one is activated. Raises NotActive."""
    model_version = ModelVersion.objects.select_for_update().get(pk=model_version.pk)
    if model_version.state != ModelState.ACTIVE:
        raise NotActive(f"{model_version} is not the active version.")
    _retire(model_version, actor=actor)
    return model_version


def _retire(model_version: ModelVersion, *, actor: User | None) -> None:
    model_version.state = ModelState.RETIRED
    model_version.save(update_fields=["state"])
    record(EventKind.MODEL_RETIRED, actor=actor, subject=model_version, details=facts_of(model_version))


def register_shipped() -> ModelVersion:
    """Registers the shipped model; activates it where none ever was. A choice of the administrators stays."""
    model_version = register_model(folder=default_model_folder(), actor=None)
    if not ModelVersion.objects.exclude(activated_at=None).exists():
        model_version = activate_model(model_version=model_version, actor=None)
    return model_version


def active_model() -> ModelVersion:
    """Raises NoActiveModel."""
    model_version = ModelVersion.objects.filter(state=ModelState.ACTIVE).first()
    if model_version is None:
        raise NoActiveModel("No model version is active. An administrator activates one on the models page.")
    return model_version


# --- what the trail is told --------------------------------------------------------------------------
@transaction.atomic
def record_refusal(
    *,
    act: str,
    reason: str,
    actor: User | None,
    model_version: ModelVersion | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """A refused act stays in the trail; call it after what was refused has been undone."""
    facts = facts_of(model_version) if model_version else {}
    record(
        EventKind.MODEL_REFUSED,
        actor=actor,
        subject=model_version,
        details={"act": act, "reason": reason, **facts, **(details or {})},
        outcome=Outcome.DENIED,
    )


def facts_of(model_version: ModelVersion) -> dict[str, Any]:
    return {"name": model_version.name, "version": model_version.version, "sha256": model_version.sha256}


def _relative_to_code(folder: Path) -> str:
    folder = folder.resolve()
    base = Path(settings.BASE_DIR).resolve()
    return str(folder.relative_to(base)) if folder.is_relative_to(base) else str(folder)
