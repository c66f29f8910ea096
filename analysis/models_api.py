"""The JSON API of model versions. Administrators act; auditors look on."""

from typing import Any
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.enums import Role
from accounts.permissions import has_any_role
from accounts.requester import requester
from analysis.enums import Profile
from analysis.evaluating import cancel_evaluation, request_evaluation
from analysis.evaluation_sets import evaluation_sets
from analysis.model_intake import register_upload
from analysis.models import Evaluation, ModelVersion
from analysis.models_registry import activate_model, deactivate_model
from jobs.enums import JobKind
from jobs.models import Job
from slides.serializers import AcceptedSerializer, ErrorSerializer, JobSerializer

MayAct = has_any_role(Role.ADMINISTRATOR)
MayLook = has_any_role(Role.ADMINISTRATOR, Role.AUDITOR)


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    class Meta:
        model = Evaluation
        fields = [
            "id", "kind", "set_name", "set_sha256", "profile", "n", "figures", "weights_sha256", "software_version",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    evaluations = EvaluationSerializer(many=True, read_only=True)

    class Meta:
        model = ModelVersion
        fields = [
            "id", "name", "version", "sha256", "state", "threshold", "card", "registered_at", "activated_at",
            "evaluations",
        ]  # fmt: skip
        read_only_fields = fields


class ModelFilesSerializer(serializers.Serializer[Any]):
    card = serializers.FileField(help_text="model.json")
    weights = serializers.FileField(help_text="weights.safetensors")


class EvaluationSetSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    kind = serializers.CharField()


class EvaluateSerializer(serializers.Serializer[Any]):
    set = serializers.CharField(help_text="A name of /api/models/evaluation-sets/.")
    profile = serializers.ChoiceField(choices=Profile.choices, default=Profile.STANDARD, help_text="Slides only.")


class ActOrLook(APIView):
    """Auditors may GET, administrators all."""

    def get_permissions(self) -> list[BasePermission]:
        return [MayLook() if self.request.method == "GET" else MayAct()]


class ModelsView(ActOrLook):
    parser_classes = [MultiPartParser]

    @extend_schema(operation_id="models_list", responses=ModelVersionSerializer(many=True))
    def get(self, request: Request) -> Response:
        """All model versions, newest first."""
        versions = ModelVersion.objects.order_by("-registered_at").prefetch_related("evaluations")
        return Response(ModelVersionSerializer(versions, many=True).data)

    @extend_schema(
        operation_id="models_register",
        request={"multipart/form-data": ModelFilesSerializer},
        responses={
            201: ModelVersionSerializer,
            200: ModelVersionSerializer,
            400: ErrorSerializer,
            413: ErrorSerializer,
        },
    )
    def post(self, request: Request) -> Response:
        """Registers the two files of a model folder. 200: these weights are registered already, nothing was changed."""
        sent = request.FILES  # read before the mark, which reading sets
        version, new = register_upload(
            card=sent.get("card"),
            weights=sent.get("weights"),
            actor=requester(request),
            too_large=getattr(request._request, "upload_too_large", False),
        )
        return Response(ModelVersionSerializer(version).data, status=201 if new else 200)


class ModelView(ActOrLook):
    @extend_schema(operation_id="models_retrieve", responses=ModelVersionSerializer)
    def get(self, request: Request, model_id: UUID) -> Response:
        return Response(ModelVersionSerializer(version_or_404(model_id)).data)


class EvaluationSetsView(ActOrLook):
    @extend_schema(operation_id="models_evaluation_sets", responses=EvaluationSetSerializer(many=True))
    def get(self, request: Request) -> Response:
        """What a model version can be measured on here."""
        return Response([{"name": one.name, "kind": str(one.kind)} for one in evaluation_sets()])


class EvaluateView(ActOrLook):
    @extend_schema(
        operation_id="models_evaluate",
        request=EvaluateSerializer,
        responses={202: AcceptedSerializer, 400: ErrorSerializer},
    )
    def post(self, request: Request, model_id: UUID) -> Response:
        """Measures it on a set, in a worker. The job is at /api/models/jobs/{id}/."""
        wanted = EvaluateSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        job = request_evaluation(
            model_version=version_or_404(model_id),
            set_name=wanted.validated_data["set"],
            profile=Profile(wanted.validated_data["profile"]),
            actor=requester(request),
        )
        return Response({"job": JobSerializer(job).data}, status=202)


class ActivateView(ActOrLook):
    @extend_schema(
        operation_id="models_activate", request=None, responses={200: ModelVersionSerializer, 409: ErrorSerializer}
    )
    def post(self, request: Request, model_id: UUID) -> Response:
        """New runs use it from now on; 409 without a finished evaluation of exactly these weights."""
        version = activate_model(model_version=version_or_404(model_id), actor=requester(request))
        return Response(ModelVersionSerializer(version).data)


class DeactivateView(ActOrLook):
    @extend_schema(
        operation_id="models_deactivate", request=None, responses={200: ModelVersionSerializer, 409: ErrorSerializer}
    )
    def post(self, request: Request, model_id: UUID) -> Response:
        """No detection starts until a version is activated."""
        version = deactivate_model(model_version=version_or_404(model_id), actor=requester(request))
        return Response(ModelVersionSerializer(version).data)


class ModelJobView(ActOrLook):
    @extend_schema(operation_id="models_job", responses=JobSerializer)
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(JobSerializer(job_or_404(job_id)).data)


class CancelModelJobView(ActOrLook):
    @extend_schema(
        operation_id="models_job_cancel", request=None, responses={202: AcceptedSerializer, 400: ErrorSerializer}
    )
    def post(self, request: Request, job_id: UUID) -> Response:
        """A waiting evaluation ends at once, a running one at its next block."""
        job = cancel_evaluation(job=job_or_404(job_id), actor=requester(request))
        return Response({"job": JobSerializer(job).data}, status=202)


def version_or_404(model_id: UUID) -> ModelVersion:
    version = ModelVersion.objects.filter(pk=model_id).first()
    if version is None:
        raise Http404
    return version


def job_or_404(job_id: UUID) -> Job:
    job = Job.objects.filter(pk=job_id, kind=JobKind.EVALUATE_MODEL).first()
    if job is None:
        raise Http404
    return job
