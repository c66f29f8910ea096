"""tus 1.0 (https://tus.io/protocols/resumable-upload): creation, checksum, termination, and the pieces. Acts are in uploads.py."""

import base64
import binascii
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.cache import patch_cache_control
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import APIException, NotFound, UnsupportedMediaType
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.enums import Role
from accounts.permissions import has_any_role
from accounts.requester import requester
from slides import uploads
from slides.enums import UploadState
from slides.errors import SlidesError, UploadRefused
from slides.models import Upload
from slides.serializers import ErrorSerializer, UploadSerializer

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,termination"
CHECKSUM_ALGORITHMS = ("sha1", "sha256")  # sha1 is what the protocol asks for at least
PIECE_TYPE = "application/offset+octet-stream"
LARGEST_METADATA = 4096
LARGEST_READ_FOR_A_REFUSAL = 16 * 2**20

Operators = has_any_role(Role.OPERATOR, Role.ADMINISTRATOR)
_TUS_HEADER = OpenApiParameter("Tus-Resumable", str, OpenApiParameter.HEADER, required=True, description=VERSION)


class WrongTusVersion(APIException):
    status_code = 412
    default_code = "tus_version"
    default_detail = f"This server speaks tus {VERSION}: send the header Tus-Resumable."


class LengthRequired(APIException):
    status_code = 411
    default_code = "length_required"
    default_detail = "Say with Content-Length how many bytes this piece has."


class TusView(GenericAPIView[Upload]):
    permission_classes = [Operators]
    serializer_class = UploadSerializer
    parser_classes: list[Any] = []  # bodies are streamed to disk, never parsed
    queryset = Upload.objects.none()
    speaks_tus = True

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if (
            self.speaks_tus
            and request.method in ("POST", "HEAD", "PATCH", "DELETE")
            and (request.headers.get("Tus-Resumable") != VERSION)
        ):
            raise WrongTusVersion

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Tus-Resumable"] = VERSION
        if response.status_code == 412:
            response["Tus-Version"] = VERSION
        patch_cache_control(response, private=True, no_store=True)
        return response

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(
            status=204,
            headers={
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
                "Tus-Max-Size": str(settings.UPLOAD_MAX_BYTES),
            },
        )

    def own(self, upload_id: UUID) -> Upload:
        upload = Upload.objects.visible_to(requester(self.request)).filter(pk=upload_id).first()
        if upload is None:
            raise NotFound
        return upload


class UploadsView(TusView):
    @extend_schema(
        operation_id="uploads_list",
        parameters=[OpenApiParameter("sha256", str, description="only those announced with this content")],
    )
    def get(self, request: Request) -> Response:
        """One's own unfinished uploads, newest first: what can be gone on with."""
        unfinished = (
            Upload.objects.visible_to(requester(request)).filter(state=UploadState.RECEIVING).select_related("case")
        )
        if sha256 := request.query_params.get("sha256"):
            unfinished = unfinished.filter(claimed_sha256=sha256)
        page = self.paginate_queryset(unfinished)
        return self.get_paginated_response(UploadSerializer(page, many=True).data)

    @extend_schema(
        operation_id="uploads_create",
        request=None,
        parameters=[
            _TUS_HEADER,
            OpenApiParameter("Upload-Length", int, OpenApiParameter.HEADER, required=True),
            OpenApiParameter(
                "Upload-Metadata",
                str,
                OpenApiParameter.HEADER,
                required=True,
                description="filename, case, node, sha256 (values in base64)",
            ),
        ],
        responses={
            201: OpenApiResponse(description="Location names the upload"),
            400: ErrorSerializer,
            413: ErrorSerializer,
            507: ErrorSerializer,
        },
    )
    def post(self, request: Request) -> Response:
        """Announces a file (tus creation)."""
        if int(request.META.get("CONTENT_LENGTH") or 0):
            raise UnsupportedMediaType(
                request.content_type, "Announce the upload first, then send its bytes with PATCH."
            )
        facts = _metadata(request.headers.get("Upload-Metadata", ""))
        upload = uploads.start_upload(
            owner=requester(request),
            length=_number(request, "Upload-Length"),
            file_name=facts.get("filename", ""),
            accession=facts.get("case", ""),
            node_label=facts.get("node", ""),
            claimed_sha256=facts.get("sha256", ""),
            request=request,
        )
        return Response(status=201, headers={"Location": reverse("upload", args=[upload.pk]), "Upload-Offset": "0"})


class UploadView(TusView):
    @extend_schema(exclude=True)
    def head(self, request: Request, upload_id: UUID) -> Response:
        """How far the upload is. When only its end is missing (the process died), the end is made up for here."""
        self.own(upload_id)
        upload = uploads.finish_if_complete(upload_id=upload_id, request=request)
        if upload.state in (UploadState.CANCELLED, UploadState.REFUSED):
            raise NotFound  # 404 tells a tus client to begin anew
        return Response(headers={"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.length)})

    @extend_schema(
        operation_id="uploads_send",
        request={PIECE_TYPE: OpenApiTypes.BINARY},
        parameters=[
            _TUS_HEADER,
            OpenApiParameter("Upload-Offset", int, OpenApiParameter.HEADER, required=True),
            OpenApiParameter(
                "Upload-Checksum", str, OpenApiParameter.HEADER, description="sha1 or sha256, and the digest in base64"
            ),
        ],
        responses={
            204: OpenApiResponse(description="Upload-Offset says how many bytes are safe now"),
            400: ErrorSerializer,
            409: ErrorSerializer,
            413: ErrorSerializer,
            460: ErrorSerializer,
            507: ErrorSerializer,
        },
    )
    def patch(self, request: Request, upload_id: UUID) -> Response:
        """A piece. Every byte that is counted in Upload-Offset is safely on disk."""
        upload = self.own(upload_id)
        if request.content_type != PIECE_TYPE:
            raise UnsupportedMediaType(request.content_type, f"Send pieces as {PIECE_TYPE}.")
        size = request.META.get("CONTENT_LENGTH", "")
        if not size.isdecimal():
            raise LengthRequired
        try:
            upload = uploads.receive(
                upload_id=upload.pk,
                offset=_number(request, "Upload-Offset"),
                size=int(size),
                stream=_body(request),
                checksum=_checksum(request.headers.get("Upload-Checksum", "")),
                request=request,
            )
        except SlidesError:
            _read_to_end(_body(request), int(size))
            raise
        return Response(status=204, headers={"Upload-Offset": str(upload.offset)})

    @extend_schema(operation_id="uploads_cancel", parameters=[_TUS_HEADER], responses={204: None, 409: ErrorSerializer})
    def delete(self, request: Request, upload_id: UUID) -> Response:
        """Gives the upload up (tus termination)."""
        uploads.cancel_upload(upload_id=self.own(upload_id).pk, actor=requester(request), request=request)
        return Response(status=204)


class DismissUploadView(TusView):
    parser_classes = [JSONParser]
    speaks_tus = False

    @extend_schema(operation_id="uploads_dismiss", request=None, responses={204: None, 409: ErrorSerializer})
    def post(self, request: Request, upload_id: UUID) -> Response:
        """The same as DELETE, for the page's buttons: gives up an unfinished upload, clears away a refused one."""
        uploads.cancel_upload(upload_id=self.own(upload_id).pk, actor=requester(request), request=request)
        return Response(status=204)


def _body(request: Request) -> HttpRequest:
    """The untouched stream: DRF's own would be read whole into memory by a parser."""
    return request._request


def _read_to_end(stream: HttpRequest, size: int) -> None:
    """Lets the sender finish a piece that is refused: one that is cut off while it sends never sees the reason."""
    left = size if size <= LARGEST_READ_FOR_A_REFUSAL else 0
    with suppress(OSError):
        while left > 0 and (piece := stream.read(min(uploads.PIECE_BYTES, left))):
            left -= len(piece)


def _checksum(header: str) -> uploads.PieceChecksum | None:
    """`algorithm base64`. Raises UploadRefused."""
    if not header:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in CHECKSUM_ALGORITHMS:
        raise UploadRefused(f"Checksums of pieces are read as {' or '.join(CHECKSUM_ALGORITHMS)}.")
    try:
        return uploads.PieceChecksum(algorithm, base64.b64decode(value, validate=True))
    except binascii.Error as error:
        raise UploadRefused("The checksum of the piece cannot be read.") from error


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isdecimal() or len(text) > 18:
        raise UploadRefused(f"The header {header} is missing or no number.")
    return int(text)


def _metadata(header: str) -> dict[str, str]:
    """`key base64,key base64`. Raises UploadRefused."""
    if len(header) > LARGEST_METADATA:
        raise UploadRefused("The description of the file is too long.")
    facts: dict[str, str] = {}
    for pair in filter(None, (pair.strip() for pair in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            facts[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UploadRefused(f"The description of the file ({key}) cannot be read.") from error
    return facts
