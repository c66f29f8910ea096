"""JSON API of review/. A view parses, calls one act, answers. What a person may not see is 404, as if it were not there."""

import json
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import FileResponse, Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.enums import Role
from accounts.permissions import has_any_role
from accounts.requester import requester
from analysis.models import Run
from review import policies, reading, signing, visibility
from review.enums import CallValue, Meaning, Verdict
from review.errors import NotAllowedNow
from review.idempotency import answer_once, key_of
from review.models import Read, Signature
from review.serializers import (
    AmendRequest,
    CallRequest,
    DecisionRequest,
    LockRequest,
    MarkRequest,
    ProgressRequest,
    SignRequest,
    Versioned,
    ai_facts,
)
from review.state import other_read_facts, read_state
from slides.models import Case, Slide

READS = has_any_role(Role.READER, Role.ADJUDICATOR)
AUDITS = has_any_role(Role.AUDITOR)
STATE = OpenApiTypes.OBJECT


class ReadActView(APIView):
    """A POST on one's own read: checked, done once per Idempotency-Key, answered with the new state."""

    permission_classes = [READS]
    request_serializer: type[Versioned] = Versioned

    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        raise NotImplementedError

    def post(self, request: Request, read_id: UUID, **kwargs: Any) -> Response:
        reading.own_read(
            user=requester(request), read_id=read_id
        )  # an answer kept from before is not for who lost access since
        form = self.request_serializer(data=request.data)
        form.is_valid(raise_exception=True)

        def answer() -> tuple[int, dict[str, Any]]:
            return 200, read_state(self.act(read_id, dict(form.validated_data), **kwargs))

        status, body = answer_once(
            user=requester(request),
            key=key_of(request),
            path=request.path,
            wanted=json.loads(json.dumps(form.validated_data, default=str)),
            act=answer,
        )
        return Response(body, status=status)


class ReadView(APIView):
    permission_classes = [READS]

    @extend_schema(responses=STATE)
    def get(self, request: Request, read_id: UUID) -> Response:
        return Response(read_state(reading.own_read(user=requester(request), read_id=read_id)))


@extend_schema(request=CallRequest, responses=STATE)
class CallsView(ReadActView):
    request_serializer = CallRequest

    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.record_call(
            user=requester(self.request),
            read_id=read_id,
            value=CallValue(data["call"]),
            reason=data["reason"],
            expected_version=data["expected_version"],
            request=self.request._request,
        )


@extend_schema(request=MarkRequest, responses=STATE)
class MarksView(ReadActView):
    request_serializer = MarkRequest

    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.add_mark(
            user=requester(self.request),
            read_id=read_id,
            outline=data["outline"],
            note=data["note"],
            expected_version=data["expected_version"],
            request=self.request._request,
        )


@extend_schema(request=Versioned, responses=STATE)
class MarkRemovalView(ReadActView):
    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.remove_mark(
            user=requester(self.request),
            read_id=read_id,
            mark_id=kwargs["mark_id"],
            expected_version=data["expected_version"],
            request=self.request._request,
        )


@extend_schema(request=LockRequest, responses=STATE)
class LockView(ReadActView):
    request_serializer = LockRequest

    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.lock_read(
            user=requester(self.request),
            read_id=read_id,
            expected_version=data["expected_version"],
            request=self.request._request,
        )


@extend_schema(request=DecisionRequest, responses=STATE)
class DecisionsView(ReadActView):
    request_serializer = DecisionRequest

    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.decide(
            user=requester(self.request),
            read_id=read_id,
            lesion_id=data["lesion"],
            verdict=Verdict(data["verdict"]),
            reason=data["reason"],
            text=data["text"],
            expected_version=data["expected_version"],
            request=self.request._request,
        )


@extend_schema(request=Versioned, responses=STATE)
class UndoView(ReadActView):
    def act(self, read_id: UUID, data: dict[str, Any], **kwargs: Any) -> Read:
        return reading.undo(
            user=requester(self.request),
            read_id=read_id,
            expected_version=data["expected_version"],
            request=self.request._request,
        )


class ProgressView(APIView):
    permission_classes = [READS]

    @extend_schema(request=ProgressRequest, responses={204: None})
    def post(self, request: Request, read_id: UUID) -> Response:
        reading.own_read(user=requester(request), read_id=read_id)
        form = ProgressRequest(data=request.data)
        form.is_valid(raise_exception=True)

        def answer() -> tuple[int, dict[str, Any]]:
            reading.report_progress(
                user=requester(request), read_id=read_id, request=request._request, **form.validated_data
            )
            return 204, {}

        status, _ = answer_once(
            user=requester(request),
            key=key_of(request),
            path=request.path,
            wanted=dict(form.validated_data),
            act=answer,
        )
        return Response(status=status)


# --- the AI, for the reader after the lock ----------------------------------------------------------
class ReadAiView(APIView):
    permission_classes = [READS]

    @extend_schema(responses=STATE)
    def get(self, request: Request, read_id: UUID) -> Response:
        read = reading.own_read(user=requester(request), read_id=read_id)
        shown = visibility.ai_for_read(read=read, request=request._request)
        return Response(ai_facts(shown, base_url=f"/api/reads/{read.pk}/ai/"))


class ReadHeatmapView(APIView):
    permission_classes = [READS]

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, read_id: UUID) -> HttpResponse:
        read = reading.own_read(user=requester(request), read_id=read_id)
        return _heatmap(visibility.run_of_read(read))


class ReadFieldView(APIView):
    permission_classes = [READS]

    @extend_schema(responses={(200, "image/jpeg"): OpenApiTypes.BINARY})
    def get(self, request: Request, read_id: UUID, lesion_id: UUID) -> FileResponse:
        read = reading.own_read(user=requester(request), read_id=read_id)
        run = visibility.run_of_read(read)
        return _field(run, lesion_id)


# --- the AI and all reads, for the auditor ----------------------------------------------------------
class AuditAiView(APIView):
    permission_classes = [AUDITS]

    @extend_schema(responses=STATE)
    def get(self, request: Request, slide_id: UUID) -> Response:
        slide = _slide(request, slide_id)
        run_id = _uuid_or_404(request.query_params.get("run"))
        shown = visibility.ai_for_auditor(user=requester(request), slide=slide, request=request._request, run_id=run_id)
        base_url = f"/api/agreement/slides/{slide.pk}/runs/{shown.run.pk}/" if shown.run else ""
        return Response(ai_facts(shown, base_url=base_url))


class AuditReadsView(APIView):
    permission_classes = [AUDITS]

    @extend_schema(responses=STATE)
    def get(self, request: Request, slide_id: UUID) -> Response:
        slide = _slide(request, slide_id)
        visibility.check_ai_visible(user=requester(request), slide=slide)
        reads = visibility.other_reads(user=requester(request), slide=slide)
        return Response({"reads": [other_read_facts(read) for read in reads]})


class AuditHeatmapView(APIView):
    permission_classes = [AUDITS]

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, slide_id: UUID, run_id: UUID) -> HttpResponse:
        slide = _slide(request, slide_id)
        return _heatmap(visibility.run_file_for_auditor(user=requester(request), slide=slide, run_id=run_id))


class AuditFieldView(APIView):
    permission_classes = [AUDITS]

    @extend_schema(responses={(200, "image/jpeg"): OpenApiTypes.BINARY})
    def get(self, request: Request, slide_id: UUID, run_id: UUID, lesion_id: UUID) -> FileResponse:
        slide = _slide(request, slide_id)
        return _field(visibility.run_file_for_auditor(user=requester(request), slide=slide, run_id=run_id), lesion_id)


# --- signing ----------------------------------------------------------------------------------------
class ManifestView(APIView):
    """The manifest as it would be signed now. 409 with the reason while the case cannot be signed."""

    permission_classes = [READS]

    @extend_schema(responses=STATE)
    def get(self, request: Request, case_id: UUID) -> Response:
        case = own_case(request, case_id)
        policies.check_can_sign(user=requester(request), case=case)
        with transaction.atomic():
            text, digest = signing.show_manifest(user=requester(request), case=case)
        meanings = [
            {"value": item.value, "label": item.label}
            for item in signing.allowed_meanings(user=requester(request), case=case)
        ]
        return Response({"manifest": json.loads(text), "manifest_sha256": digest, "meanings": meanings})


class SignView(APIView):
    permission_classes = [READS]

    @extend_schema(request=SignRequest, responses=STATE)
    def post(self, request: Request, case_id: UUID) -> Response:
        case = own_case(request, case_id)
        form = SignRequest(data=request.data)
        form.is_valid(raise_exception=True)
        data = form.validated_data
        known = Signature.objects.filter(
            case=case, signer=requester(request), manifest_sha256=data["manifest_sha256"], amendment=None
        ).first()
        if known is not None and key_of(request):  # the answer was lost on its way, and the request sent again
            return Response(signature_facts(known))
        signature = signing.sign_case(
            user=requester(request),
            case=case,
            meaning=Meaning(data["meaning"]),
            password=data["password"],
            manifest_sha256=data["manifest_sha256"],
            utc_offset_minutes=data["utc_offset_minutes"],
            request=request._request,
        )
        return Response(signature_facts(signature))


class AmendView(APIView):
    permission_classes = [READS]

    @extend_schema(request=AmendRequest, responses=STATE)
    def post(self, request: Request, case_id: UUID) -> Response:
        case = own_case(request, case_id)
        form = AmendRequest(data=request.data)
        form.is_valid(raise_exception=True)
        signature = Signature.objects.filter(case=case, signer=requester(request)).order_by("-version").first()
        if signature is None:
            raise NotAllowedNow("You have not signed this case.")

        def answer() -> tuple[int, dict[str, Any]]:
            amendment = signing.amend_case(
                signature=signature,
                user=requester(request),
                reason=form.validated_data["reason"],
                request=request._request,
            )
            return 200, {"id": str(amendment.pk), "reason": amendment.reason, "at": amendment.at.isoformat()}

        status, body = answer_once(
            user=requester(request),
            key=key_of(request),
            path=request.path,
            wanted=dict(form.validated_data),
            act=answer,
        )
        return Response(body, status=status)


def signature_facts(signature: Signature) -> dict[str, Any]:
    return {
        "id": str(signature.pk),
        "version": signature.version,
        "meaning": signature.meaning,
        "printed_name": signature.printed_name,
        "signed_at": signature.signed_at.isoformat(),
        "local_time": signature.local_time,
        "manifest_sha256": signature.manifest_sha256,
        "key_id": signature.key_id,
        "seal": signature.seal,
        "report_url": f"/cases/{signature.case_id}/report/",
    }


def own_case(request: Request, case_id: UUID) -> Case:
    """A case assigned to the person. Raises Http404."""
    case = Case.objects.visible_to(requester(request)).filter(pk=case_id).first()
    if case is None or policies.assignment_of(user=requester(request), case=case) is None:
        raise Http404
    return case


def _slide(request: Request, slide_id: UUID) -> Slide:
    slide = Slide.objects.visible_to(requester(request)).select_related("case", "node").filter(pk=slide_id).first()
    if slide is None:
        raise Http404
    return slide


def _heatmap(run: Run) -> HttpResponse:
    """rows x cols bytes, row by row. The file is gzip already and goes out as it lies."""
    if not run.heatmap_path.is_file():
        raise Http404
    response = HttpResponse(run.heatmap_path.read_bytes(), content_type="application/octet-stream")
    response["Content-Encoding"] = "gzip"
    return response


def _field(run: Run, lesion_id: UUID) -> FileResponse:
    return FileResponse(visibility.field_of(run=run, lesion_id=lesion_id).open("rb"), content_type="image/jpeg")


def _uuid_or_404(text: str | None) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise Http404 from error
