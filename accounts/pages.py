"""Log-in pages. Each sign-in, refusal and sign-out is an event of the trail (accounts/signals.py is told by the trail)."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_http_methods

from accounts.errors import LinkNotValid
from accounts.requester import requester
from accounts.sign_in import use_one_time_link
from accounts.signals import password_set

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


class LogOut(LogoutView):
    """Also empties what the browser kept, so that the next person at this workstation finds no slide in it."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(request, *args, **kwargs)
        response["Clear-Site-Data"] = '"cache", "storage"'
        return response


@require_http_methods(["GET", "POST"])
@login_required
def password(request: HttpRequest) -> HttpResponse:
    """Sets the first password, or changes it; other log-ins of the person end with the change."""
    user = requester(request)
    kind = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    form = kind(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, user)
        password_set.send(sender=type(user), user=user, request=request)
        messages.success(request, "Your password is set. You need it for signing.")
        return HttpResponseRedirect(resolve_url("home"))
    return render(request, "accounts/password.html", {"form": form, "first": not user.has_usable_password()})
