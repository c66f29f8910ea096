"""Log-in pages. Each sign-in, refusal and sign-out is an event of the trail (accounts/signals.py is told by the trail)."""

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_http_methods

from accounts.errors import LinkNotValid
from accounts.sign_in import use_one_time_link

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@require_http_methods(["GET", "POST"])
def one_time_log_in(request: HttpRequest, token: str) -> HttpResponse:
    """GET asks for a click, so that a link preview does not spend the link; POST signs in."""
    if request.method == "GET":
        return render(request, "accounts/one_time.html", {"token": token})
    try:
        user = use_one_time_link(token=token)
    except LinkNotValid as error:
        return render(request, "accounts/one_time.html", {"refusal": str(error)}, status=410)
    login(request, user, backend=MODEL_BACKEND)
    return HttpResponseRedirect(resolve_url("home"))
