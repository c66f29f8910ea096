"""The models page of administrators."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render, resolve_url
from django.views.decorators.http import require_GET, require_POST

from accounts.enums import Role
from accounts.requester import requester
from analysis.errors import ModelRefused
from analysis.models import ModelVersion
from analysis.models_registry import activate_model


@require_GET
@login_required
def models_page(request: HttpRequest) -> HttpResponse:
    _check_may_see(request)
    versions = ModelVersion.objects.order_by("-registered_at")
    return render(
        request,
        "analysis/models.html",
        {"versions": versions, "may_activate": requester(request).has_role(Role.ADMINISTRATOR)},
    )


@require_POST
@login_required
def activate(request: HttpRequest, model_id: UUID) -> HttpResponse:
    if not requester(request).has_role(Role.ADMINISTRATOR):
        raise Http404
    try:
        version = activate_model(model_version=get_object_or_404(ModelVersion, pk=model_id), actor=requester(request))
        messages.success(request, f"{version} is active: new runs use it. Earlier runs stay as they are.")
    except ModelRefused as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(resolve_url("models"))


def _check_may_see(request: HttpRequest) -> None:
    if not requester(request).has_role(Role.ADMINISTRATOR, Role.AUDITOR):
        raise Http404
