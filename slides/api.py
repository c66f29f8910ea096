"""The JSON API of slides and jobs. Objects are reached through visible_to() alone: what one may not see is 404."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.enums import Role
from accounts.models import User
from accounts.permissions import SignedIn, has_any_role
from accounts.requester import requester
from audit_trail.enums import EventKind
from audit_trail.recording import record
from jobs.enums import LIVE
from jobs.models import Job
from slides import importing, ingest, open_stores, tile_access, viewing
from slides.enums import AssociatedKind, SlideState
from slides.errors import ImportRefused
from slides.models import Slide
from slides.serializers import (
    AcceptedSerializer,
    ErrorSerializer,
    HeldStoreSerializer,
    ImportedSerializer,
    ImportSerializer,
    JobSerializer,
    LinkSerializer,
    OpenedSerializer,
    ReasonSerializer,
    ScaleSerializer,
    SlideSerializer,
    jobs_of,
)
from slides.wsi.slide_files import all_files_of

Operators = has_any_role(Role.OPERATOR, Role.ADMINISTRATOR)
MOST_FILES_AT_ONCE = 500


class MayViewAssociated(SignedIn):
    message = "Label and macro can name the patient: an administrator gives the right to see them."

    def has_permission(self, request: Any, view: APIView) -> bool:
        return super().has_permission(request, view) and request.user.may_view_associated


class AnyPicture(BaseContentNegotiation):
    """Pictures are sent as they are, whatever an <img> says it accepts."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


def slide_or_404(user: User, slide_id: UUID) -> Slide:
    slide = viewing.visible_slide(user, slide_id)
    if slide is None:
        raise Http404
    return slide


def accepted(job: Job | None) -> Response:
    return Response({"job": JobSerializer(job).data if job else None}, status=202)


# --- slides -------------------------------------------------------------------------------------------


class SlidesView(ListAPIView[Slide]):
    permission_classes = [SignedIn]
    serializer_class = SlideSerializer

    def get_queryset(self) -> QuerySet[Slide]:
        slides = (
            Slide.objects.visible_to(requester(self.request))
            .select_related("case", "node")
            .order_by("-created_at", "pk")
        )
        if accession := self.request.query_params.get("case"):
            slides = slides.filter(case__accession=accession)
        if state := self.request.query_params.get("state"):
            slides = slides.filter(state=state)
        return slides

    @extend_schema(
        operation_id="slides_list",
        parameters=[
            OpenApiParameter("case", str, description="accession number"),
            OpenApiParameter("state", str, enum=SlideState.values),
        ],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.get_queryset()) or []
        context = {"user": requester(request), **jobs_of(list(page))}
        return self.get_paginated_response(SlideSerializer(page, many=True, context=context).data)


class SlideView(APIView):
    permission_classes = [SignedIn]

    @extend_schema(operation_id="slides_retrieve", responses=SlideSerializer)
    def get(self, request: Request, slide_id: UUID) -> Response:
        slide = slide_or_404(requester(request), slide_id)
        context = {"user": requester(request), **jobs_of([slide])}
        return Response(SlideSerializer(slide, context=context).data)


class RetryView(APIView):
    permission_classes = [Operators]

    @extend_schema(operation_id="slides_retry", request=None, responses={202: AcceptedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        slide = slide_or_404(requester(request), slide_id)
        return accepted(ingest.retry(slide_id=slide.pk, actor=requester(request), request=request))


class ScaleView(GenericAPIView[Slide]):
    permission_classes = [Operators]
    serializer_class = ScaleSerializer

    @extend_schema(operation_id="slides_scale", responses={202: AcceptedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        """Enters the size of a pixel by hand. Detection starts by itself when it waited for this."""
        slide = slide_or_404(requester(request), slide_id)
        entry = self.get_serializer(data=request.data)
        entry.is_valid(raise_exception=True)
        ingest.correct_scale(slide_id=slide.pk, actor=requester(request), request=request, **entry.validated_data)
        return accepted(Job.objects.filter(subject_id=slide.pk, state__in=LIVE).order_by("-created_at").first())


class DeleteView(GenericAPIView[Slide]):
    permission_classes = [Operators]
    serializer_class = ReasonSerializer

    @extend_schema(operation_id="slides_delete", responses={202: AcceptedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        slide = slide_or_404(requester(request), slide_id)
        entry = self.get_serializer(data=request.data)
        entry.is_valid(raise_exception=True)
        ingest.delete_slide(slide_id=slide.pk, actor=requester(request), request=request, **entry.validated_data)
        open_stores.forget(str(slide.pk))
        return accepted(None)


class LinkView(GenericAPIView[Slide]):
    permission_classes = [Operators]
    serializer_class = LinkSerializer

    @extend_schema(operation_id="slides_link", responses={202: AcceptedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        """The same file as a slide of a second case."""
        slide = slide_or_404(requester(request), slide_id)
        entry = self.get_serializer(data=request.data)
        entry.is_valid(raise_exception=True)
        wanted = entry.validated_data
        _, job = ingest.link_slide(
            slide_id=slide.pk,
            accession=wanted["case"],
            node_label=wanted["node"],
            actor=requester(request),
            request=request,
        )
        return accepted(job)


class ImportsView(GenericAPIView[Slide]):
    permission_classes = [Operators]
    serializer_class = ImportSerializer

    @extend_schema(operation_id="slides_import", responses={202: ImportedSerializer, 400: ErrorSerializer})
    def post(self, request: Request) -> Response:
        """Files of a folder of this server, in place. Only below METADET_IMPORT_FOLDERS."""
        entry = self.get_serializer(data=request.data)
        entry.is_valid(raise_exception=True)
        wanted = entry.validated_data
        files = importing.slide_files([importing.allowed_from_the_page(wanted["path"])])
        if len(files) > MOST_FILES_AT_ONCE:
            raise ImportRefused(f"{len(files)} files at once are too many: import at most {MOST_FILES_AT_ONCE}.")
        for file in (each for entry_file in files for each in all_files_of(entry_file)):
            importing.allowed_from_the_page(str(file))  # a link inside the folder may lead out of it
        results = [
            importing.import_file(
                path=file,
                accession=wanted["case"],
                node_label=wanted["node"],
                actor=requester(request),
                hash_now=False,
                request=request,
            )
            for file in files
        ]
        taken = [result.slide.pk for result in results if result.slide]
        refused = [{"file": result.path.name, "reason": result.reason} for result in results if not result.slide]
        if not taken:
            raise ImportRefused(" ".join(dict.fromkeys(each["reason"] for each in refused)))
        words = f"{len(taken)} of {len(results)} files were taken over and are being prepared."
        messages.info(request._request, " ".join([words, *(f"{each['file']}: {each['reason']}" for each in refused)]))
        return Response({"slides": taken, "refused": refused}, status=202)


# --- pictures -----------------------------------------------------------------------------------------


class ViewingView(GenericAPIView[Slide]):
    permission_classes = [SignedIn]
    serializer_class = HeldStoreSerializer

    @extend_schema(operation_id="slides_view", responses={200: OpenedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        """Opens the tile path for a minute (HttpOnly cookie); the page repeats this while the slide is shown, and names
        the tiles it holds: where they were replaced meanwhile it reads on in them, and is told of the newer ones."""
        slide = slide_or_404(requester(request), slide_id)
        entry = self.get_serializer(data=request.data)
        entry.is_valid(raise_exception=True)
        if not request.session.session_key:
            raise Http404
        opened = viewing.open_slide(
            slide=slide,
            user=requester(request),
            session_key=request.session.session_key,
            held_store=entry.validated_data["store"],
            request=request,
        )
        response = Response(
            {
                "tiles": opened.tiles,
                "descriptor": opened.descriptor,
                "thumbnail": opened.thumbnail,
                "expires_in": opened.expires_in,
                "newer_tiles": opened.newer_tiles,
            }
        )
        for name, value in ((tile_access.COOKIE_NAME, opened.token), (tile_access.EDGE_COOKIE_NAME, opened.edge_pass)):
            if value is not None:
                response.set_cookie(
                    name,
                    value,
                    max_age=opened.expires_in,
                    path=opened.cookie_path,
                    httponly=True,
                    samesite="Lax",
                    secure=settings.SESSION_COOKIE_SECURE,
                )
        return response


class TileView(APIView):
    """One tile as an ordinary view: session, permission query, look-up. The reference for slides.tile_service."""

    permission_classes = [SignedIn]
    content_negotiation_class = AnyPicture

    @extend_schema(
        operation_id="slides_tile", responses={(200, "image/jpeg"): OpenApiTypes.BINARY, 304: OpenApiResponse()}
    )
    def get(self, request: Request, slide_id: UUID, store: str, level: int, col: int, row: int) -> HttpResponse:
        slide = slide_or_404(requester(request), slide_id)
        if slide.state != SlideState.READY or store not in (slide.store, *slide.earlier_stores):
            raise Http404
        try:
            tile = viewing.store_of(slide, store).tile(level, col, row)
        except KeyError as error:
            raise Http404 from error
        except OSError:
            return HttpResponse(
                "The slide's file cannot be read now.", status=503, headers={"Cache-Control": "no-store"}
            )
        headers = {
            "ETag": tile.etag,
            "Cache-Control": f"private, max-age={request.session.get_expiry_age()}",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("If-None-Match") == tile.etag:
            return HttpResponse(status=304, headers=headers)
        return HttpResponse(tile.data, content_type="image/jpeg", headers=headers)


class ThumbnailView(APIView):
    """The overview for lists and cards; no opening of the slide."""

    permission_classes = [SignedIn]
    content_negotiation_class = AnyPicture

    @extend_schema(operation_id="slides_thumbnail", responses={(200, "image/jpeg"): OpenApiTypes.BINARY})
    def get(self, request: Request, slide_id: UUID) -> HttpResponse:
        slide = slide_or_404(requester(request), slide_id)
        if slide.state != SlideState.READY:
            raise Http404
        try:
            picture = (slide.store_folder / "thumbnail.jpg").read_bytes()
        except OSError as error:
            raise Http404 from error
        return HttpResponse(picture, content_type="image/jpeg", headers={"X-Content-Type-Options": "nosniff"})


class AssociatedView(APIView):
    """Label or macro. Both can name the patient: an own right, and an event each time."""

    permission_classes = [MayViewAssociated]
    content_negotiation_class = AnyPicture

    @extend_schema(operation_id="slides_associated", responses={(200, "image/png"): OpenApiTypes.BINARY})
    def get(self, request: Request, slide_id: UUID, kind: str) -> HttpResponse:
        slide = slide_or_404(requester(request), slide_id)
        if kind not in AssociatedKind.values or not slide.associated_images.filter(kind=kind).exists():
            raise Http404
        try:
            picture = (slide.associated_folder / f"{kind}.png").read_bytes()
        except OSError as error:
            raise Http404 from error
        with transaction.atomic():
            record(
                EventKind.ASSOCIATED_VIEWED,
                actor=requester(request),
                subject=slide,
                case_id=slide.case_id,
                slide_id=slide.pk,
                details={"kind": kind},
                request=request,
            )
        return HttpResponse(picture, content_type="image/png", headers={"Cache-Control": "private, no-store"})


# --- jobs ---------------------------------------------------------------------------------------------


def job_or_404(user: User, job_id: UUID) -> Job:
    job = Job.objects.filter(pk=job_id).first()
    if job is None or not Slide.objects.visible_to(user).filter(pk=job.subject_id).exists():
        raise Http404
    return job


class JobView(APIView):
    permission_classes = [Operators]

    @extend_schema(operation_id="jobs_retrieve", responses=JobSerializer)
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(JobSerializer(job_or_404(requester(request), job_id)).data)


class CancelJobView(APIView):
    permission_classes = [Operators]

    @extend_schema(operation_id="jobs_cancel", request=None, responses={202: AcceptedSerializer, 400: ErrorSerializer})
    def post(self, request: Request, job_id: UUID) -> Response:
        """Asks for the end of a job: a waiting one ends at once, a running one at its next block."""
        job = job_or_404(requester(request), job_id)
        return accepted(ingest.cancel_job(job_id=job.pk, actor=requester(request), request=request))
