"""Starting detection. No result ever leaves through here: people see AI results through review/ alone."""

from typing import Any
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.enums import Role
from accounts.permissions import has_any_role
from accounts.requester import requester
from analysis.enums import Profile
from analysis.runs import request_run
from slides.models import Slide


class DetectRequest(serializers.Serializer[Any]):
    profile = serializers.ChoiceField(choices=Profile.choices, default=Profile.STANDARD)


class DetectAnswer(serializers.Serializer[Any]):
    job = serializers.UUIDField(allow_null=True, help_text="Null when this result exists already.")
    message = serializers.CharField()


class DetectView(APIView):
    permission_classes = [has_any_role(Role.OPERATOR)]

    @extend_schema(request=DetectRequest, responses={202: DetectAnswer, 200: DetectAnswer})
    def post(self, request: Request, slide_id: UUID) -> Response:
        slide = Slide.objects.visible_to(requester(request)).filter(pk=slide_id).first()
        if slide is None:
            raise Http404
        wanted = DetectRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        job = request_run(slide=slide, profile=Profile(wanted.validated_data["profile"]), actor=requester(request))
        if job is None:
            return Response({"job": None, "message": "This slide has a result of the active model already."})
        return Response({"job": job.pk, "message": "Detection is in the queue."}, status=202)
