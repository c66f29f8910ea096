"""The front door and the health check."""

from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import resolve_url
from django.views.decorators.http import require_GET
from drf_spectacular.views import SpectacularAPIView

from accounts.enums import Role
from accounts.permissions import SignedIn
from accounts.requester import requester

HOME_OF: list[tuple[Role, str]] = [
    # the first role a person has decides where they begin
    (Role.READER, "worklist"),
    (Role.ADJUDICATOR, "worklist"),
    (Role.OPERATOR, "slides"),
    (Role.AUDITOR, "agreement"),
    (Role.ADMINISTRATOR, "models"),
]


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    for role, name in HOME_OF:
        if requester(request).has_role(role):
            return HttpResponseRedirect(resolve_url(name))
    return HttpResponse(
        "Your account has no role yet. An administrator gives roles.", status=403, content_type="text/plain"
    )


@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """200 when this process and the database answer; used by the supervisor and by load balancers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


schema = SpectacularAPIView.as_view(permission_classes=[SignedIn])
