"""The signature under a case: a manifest shown as it will be signed, re-authentication, a seal; amendments afterwards.

21 CFR 11.50 and 11.70: printed name, date and time, meaning; bound to the record by hash. The manifest is made anew in
the transaction of the signature: when its hash is not the one that was shown, nothing is signed.
"""

import hashlib
import json
from datetime import datetime, timedelta
from datetime import timezone as fixed_offset
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts.errors import WrongPassword
from accounts.models import User
from accounts.sign_in import check_password_again
from analysis.detector.detection import NOT_CALIBRATED
from audit_trail.canonical import canonical_json
from audit_trail.enums import EventKind, Outcome
from audit_trail.keys import SealingKey
from audit_trail.recording import record
from review import policies
from review.enums import AssignmentRole, Meaning, Phase
from review.errors import InvalidInput, NotAllowedNow, RecordChanged
from review.models import Amendment, Decision, Read, ShownManifest, Signature
from review.node_table import node_table
from review.state import ROLE_MEANINGS, call_facts, mark_facts
from slides.enums import SlideState
from slides.models import Case, Slide

MANIFEST_FORMAT = "metadet manifest 1"


# --- the manifest ----------------------------------------------------------------------------------
def build_manifest(*, user: User, case: Case) -> str:
    """Canonical JSON of everything the signature stands for. The same record gives the same text."""
    slides = list(Slide.objects.present().filter(case=case).select_related("node").order_by("position", "created_at"))
    reads = reads_to_sign(user=user, case=case)
    by_slide = {read.slide_id: read for read in reads}
    return canonical_json(
        {
            "format": MANIFEST_FORMAT,
            "software_version": settings.VERSION,
            "case": {"id": str(case.pk), "accession": case.accession, "protocol": case.protocol},
            "signer": {"id": str(user.pk), "printed_name": str(user)},
            "slides": [_slide_part(slide, by_slide.get(slide.pk)) for slide in slides],
            "node_table": node_table(reads, slides).to_json(),
            "amends": _amended(user, case),
        }
    )


def reads_to_sign(*, user: User, case: Case) -> list[Read]:
    reads = Read.objects.filter(reader=user, slide__case=case, slide__deleted_at=None, slide__state=SlideState.READY)
    return list(
        reads.select_related("slide__node", "slide__case", "run__model_version").order_by(
            "slide__position", "slide__created_at"
        )
    )


def show_manifest(*, user: User, case: Case) -> tuple[str, str]:
    """The manifest to be shown before signing, and its SHA-256. It is kept, so that a refusal can name what changed."""
    text = build_manifest(user=user, case=case)
    digest = sha256_of(text)
    ShownManifest.objects.get_or_create(case=case, person=user, sha256=digest, defaults={"manifest": text})
    return text, digest


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def differences(before: str, now: str) -> list[dict[str, Any]]:
    """What differs between two manifests: [{"where", "before", "now"}], in the order of `now`."""
    old, new = _flat(json.loads(before)), _flat(json.loads(now))
    places = [*new, *(place for place in old if place not in new)]
    return [
        {"where": place, "before": old.get(place), "now": new.get(place)}
        for place in places
        if old.get(place) != new.get(place)
    ]


# --- signing ---------------------------------------------------------------------------------------
def allowed_meanings(*, user: User, case: Case) -> list[Meaning]:
    """What the person's signature under this case can mean now: their role's meaning, or an amendment of their own."""
    assignment = policies.assignment_of(user=user, case=case)
    if assignment is None:
        return []
    if Signature.objects.filter(case=case, signer=user).exists():
        return [Meaning.AMENDMENT]
    return [Meaning(ROLE_MEANINGS[AssignmentRole(assignment.role)])]


def sign_case(
    *,
    user: User,
    case: Case,
    meaning: Meaning,
    password: str,
    manifest_sha256: str,
    utc_offset_minutes: int | None = None,
    request: HttpRequest,
) -> Signature:
    """Raises WrongPassword, RecordChanged with the differences, NotAllowedNow, InvalidInput; each refusal is an event.

    The password is checked before the transaction: its own events must outlive a refusal.
    """
    try:
        check_password_again(request=request, user=user, password=password)
        return _sign(user, case, meaning, manifest_sha256, utc_offset_minutes, request)
    except (WrongPassword, RecordChanged, NotAllowedNow, InvalidInput) as error:
        with transaction.atomic():
            record(
                EventKind.SIGNING_REFUSED,
                actor=user,
                subject=case,
                case_id=case.pk,
                details={"code": error.code, "reason": str(error), "manifest_sha256": manifest_sha256},
                outcome=Outcome.DENIED,
                request=request,
            )
        raise


@transaction.atomic
def _sign(
    user: User,
    case: Case,
    meaning: Meaning,
    shown_sha256: str,
    utc_offset_minutes: int | None,
    request: HttpRequest,
) -> Signature:
    own = Read.objects.filter(reader=user, slide__case=case)
    list(own.select_for_update(of=("self",)).order_by("pk"))  # no act slips in between the check and the seal
    policies.check_can_sign(user=user, case=case)
    if meaning not in (allowed := allowed_meanings(user=user, case=case)):
        raise InvalidInput(f"Your signature under this case means: {', '.join(item.label for item in allowed)}.")
    manifest = build_manifest(user=user, case=case)
    digest = sha256_of(manifest)
    if digest != shown_sha256:
        shown = ShownManifest.objects.filter(case=case, person=user, sha256=shown_sha256).first()
        raise RecordChanged(
            "The record is not the one you were shown. Nothing was signed. Look at the differences, then sign again.",
            differences=differences(shown.manifest, manifest) if shown else [],
            manifest_sha256=digest,
        )
    now = timezone.now()
    signature = Signature(
        case=case,
        signer=user,
        version=Signature.objects.filter(case=case, signer=user).count() + 1,
        meaning=meaning,
        printed_name=str(user),
        signed_at=now,
        local_time=_local_time(now, utc_offset_minutes),
        manifest=manifest,
        manifest_sha256=digest,
    )
    key = SealingKey("signing")
    signature.key_id = key.key_id
    signature.seal = key.seal(sealed_text(signature))
    signature.save(force_insert=True)
    for read in own.filter(phase=Phase.FINAL):
        read.phase = Phase.SIGNED
        read.version += 1
        read.save(update_fields=["phase", "version"])
    record(
        EventKind.CASE_SIGNED,
        actor=user,
        subject=signature,
        case_id=case.pk,
        details={"meaning": str(meaning), "version": signature.version, "manifest_sha256": digest, "key": key.key_id},
        request=request,
    )
    return signature


@transaction.atomic
def amend_case(*, signature: Signature, user: User, reason: str, request: HttpRequest | None = None) -> Amendment:
    """Opens the signer's own reads of a signed case again. The signed version stays. Raises NotAllowedNow, InvalidInput."""
    if signature.signer_id != user.pk:
        raise NotAllowedNow("Only the person who signed can amend it.")
    own = Read.objects.filter(reader=user, slide__case_id=signature.case_id)
    list(own.select_for_update(of=("self",)).order_by("pk"))
    policies.check_can_amend(signature)
    if not (reason := reason.strip()):
        raise InvalidInput("Give the reason of the amendment.")
    amendment = Amendment.objects.create(signature=signature, reason=reason)
    for read in own.filter(phase=Phase.SIGNED):
        read.phase = Phase.FINAL
        read.version += 1
        read.save(update_fields=["phase", "version"])
    details = {"reason": reason, "signature": str(signature.pk), "version": signature.version}
    record(
        EventKind.CASE_AMENDED,
        actor=user,
        subject=amendment,
        case_id=signature.case_id,
        details=details,
        request=request,
    )
    return amendment


# --- verifying -------------------------------------------------------------------------------------
def sealed_text(signature: Signature) -> str:
    """What the Ed25519 seal covers: the manifest's hash together with who, when and what for."""
    return canonical_json(
        {
            "manifest_sha256": signature.manifest_sha256,
            "case": str(signature.case_id),
            "signer": str(signature.signer_id),
            "printed_name": signature.printed_name,
            "version": signature.version,
            "meaning": str(signature.meaning),
            "signed_at": signature.signed_at.isoformat(),
            "local_time": signature.local_time,
        }
    )


def signature_problems(signature: Signature) -> list[str]:
    """Why the signature does not hold, in words; empty when it does."""
    problems = []
    if sha256_of(signature.manifest) != signature.manifest_sha256:
        problems.append("The signed text was altered: its hash is another one.")
    key = SealingKey("signing")
    if key.key_id != signature.key_id:
        problems.append(
            f"It was sealed with another key ({signature.key_id}); this installation cannot check the seal."
        )
    elif not key.verifies(sealed_text(signature), signature.seal):
        problems.append("The seal does not fit: hash, name, time or meaning was altered.")
    about = json.loads(signature.manifest)
    if (about["case"]["id"], about["signer"]["id"]) != (str(signature.case_id), str(signature.signer_id)):
        problems.append("The signed text is of another case or another person.")
    return problems


# --- parts -----------------------------------------------------------------------------------------
def _slide_part(slide: Slide, read: Read | None) -> dict[str, Any]:
    return {
        "id": str(slide.pk),
        "name": slide.display_name,
        "node": slide.node.label if slide.node else None,
        "sha256": slide.sha256,
        "mpp": [slide.mpp_x, slide.mpp_y],
        "state": slide.state,
        "read": None if read is None else _read_part(read),
    }


def _read_part(read: Read) -> dict[str, Any]:
    return {
        "id": str(read.pk),
        "protocol": read.protocol,
        "started_at": read.started_at.isoformat(),
        "locked_at": _iso(read.locked_at),
        "ai_revealed_at": _iso(read.revealed_at),
        "ai": _ai_part(read),
        "calls": [{"stage": call.stage, **(call_facts(call) or {})} for call in read.calls.order_by("read_version")],
        "marks": [
            mark_facts(mark) | {"removed_at": _iso(mark.removal.at) if hasattr(mark, "removal") else None}
            for mark in read.marks.select_related("removal").order_by("read_version")
        ],
        "decisions": [
            _decision_part(decision) for decision in read.decisions.select_related("lesion").order_by("read_version")
        ],
    }


def _ai_part(read: Read) -> dict[str, Any] | None:
    run = read.run
    if run is None:
        return None
    return {
        "run": str(run.pk),
        "model": run.model_version.name,
        "model_version": run.model_version.version,
        "weights_sha256": run.model_version.sha256,
        "profile": run.profile,
        "threshold": run.threshold,
        "status": run.status,
        "status_reason": run.status_reason,
        "slide_score": run.slide_score,
        "slide_probability": run.slide_probability,
        "triage": run.triage,
        "triage_words": run.triage_words or NOT_CALIBRATED,
        "calibration": run.calibration,
        "heatmap_sha256": run.heatmap_sha256,
        "analysed_fraction": run.analysed_fraction,
        "failed_fraction": run.failed_fraction,
        "lesions": run.lesions.count(),
    }


def _decision_part(decision: Decision) -> dict[str, Any]:
    return {
        "lesion": str(decision.lesion_id),
        "verdict": decision.verdict,
        "reason": decision.reason,
        "text": decision.text,
        "undoes": str(decision.undoes_id) if decision.undoes_id else None,
        "ai_score": decision.ai_score,
        "ai_probability": decision.lesion.probability,
        "ai_size_class": decision.ai_size_class,
        "at": decision.at.isoformat(),
    }


def _amended(user: User, case: Case) -> dict[str, Any] | None:
    """The earlier version that this one follows, with the reason of the amendment."""
    earlier = Signature.objects.filter(case=case, signer=user).order_by("-version").select_related("amendment").first()
    if earlier is None or not hasattr(earlier, "amendment"):
        return None
    return {
        "version": earlier.version,
        "manifest_sha256": earlier.manifest_sha256,
        "reason": earlier.amendment.reason,
        "opened_at": earlier.amendment.at.isoformat(),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _local_time(now: datetime, utc_offset_minutes: int | None) -> str:
    """Seconds are enough; the exact time stands in signed_at. Without an offset from the browser: the server's zone."""
    if utc_offset_minutes is None:
        local = now.astimezone(timezone.get_default_timezone())
    else:
        local = now.astimezone(fixed_offset(timedelta(minutes=utc_offset_minutes)))
    return local.isoformat(timespec="seconds")


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves of nested JSON by their place, such as `slides[0].read.calls[1].value`."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{place}.{key}" if place else key).items()}
    if isinstance(value, list) and value:
        return {k: v for index, item in enumerate(value) for k, v in _flat(item, f"{place}[{index}]").items()}
    return {place: value}
