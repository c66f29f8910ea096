"""Model versions: registering a folder of weights and card, and choosing the active one."""

from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from accounts.models import User
from analysis.detector.card import ModelRefused as CardRefused
from analysis.detector.card import default_model_folder, verify_weights
from analysis.enums import ModelState
from analysis.errors import ModelRefused, NoActiveModel
from analysis.models import ModelVersion
from audit_trail.enums import EventKind
from audit_trail.recording import record

DEFAULT_THRESHOLD = 0.5


@transaction.atomic
def register_model(*, folder: Path, actor: User | None) -> ModelVersion:
    """The model version of `folder`; registering the same weights again changes nothing. Raises ModelRefused."""
    try:
        content = verify_weights(folder)
    except CardRefused as error:
        raise ModelRefused(str(error)) from error
    known = ModelVersion.objects.filter(sha256=content["sha256"]).first()
    if known is not None:
        return known
    card = content["card"]
    model_version = ModelVersion.objects.create(
        name=str(card.get("name", content["config"].get("name", "detector")))[:60],
        version=str(content["version"]),
        sha256=content["sha256"],
        folder=_relative_to_code(folder),
        card=card,
        threshold=float(card.get("threshold", DEFAULT_THRESHOLD)),
        state=ModelState.EVALUATED if card.get("evaluation") else ModelState.REGISTERED,
    )
    record(EventKind.MODEL_REGISTERED, actor=actor, subject=model_version, details=_facts(model_version))
    return model_version


@transaction.atomic
def activate_model(*, model_version: ModelVersion, actor: User | None) -> ModelVersion:
    """Makes it the one that new runs use; runs made before keep theirs. Raises ModelRefused for one without evaluation."""
    model_version = ModelVersion.objects.select_for_update().get(pk=model_version.pk)
    if model_version.state == ModelState.ACTIVE:
        return model_version
    if model_version.state == ModelState.REGISTERED:
        raise ModelRefused("This model version has no evaluation in its card; evaluate it before it is used.")
    for before in ModelVersion.objects.select_for_update().filter(state=ModelState.ACTIVE):
        before.state = ModelState.RETIRED
        before.save(update_fields=["state"])
        record(EventKind.MODEL_RETIRED, actor=actor, subject=before, details=_facts(before))
    model_version.state = ModelState.ACTIVE
    model_version.activated_at = Now()
    model_version.save(update_fields=["state", "activated_at"])
    record(EventKind.MODEL_ACTIVATED, actor=actor, subject=model_version, details=_facts(model_version))
    model_version.refresh_from_db()
    return model_version


def register_shipped() -> ModelVersion:
    """Registers the shipped model and activates it if none is active yet."""
    model_version = register_model(folder=default_model_folder(), actor=None)
    if not ModelVersion.objects.filter(state=ModelState.ACTIVE).exists():
        model_version = activate_model(model_version=model_version, actor=None)
    return model_version


def active_model() -> ModelVersion:
    """Raises NoActiveModel."""
    model_version = ModelVersion.objects.filter(state=ModelState.ACTIVE).first()
    if model_version is None:
        raise NoActiveModel("No model version is active. An administrator activates one on the models page.")
    return model_version


def _facts(model_version: ModelVersion) -> dict[str, str]:
    return {"name": model_version.name, "version": model_version.version, "sha256": model_version.sha256}


def _relative_to_code(folder: Path) -> str:
    folder = folder.resolve()
    base = Path(settings.BASE_DIR).resolve()
    return str(folder.relative_to(base)) if folder.is_relative_to(base) else str(folder)
