"""The trail page for auditors. Reading the trail is itself an event."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.enums import Role
from accounts.requester import requester
from audit_trail.checkpoints import checkpoint_file
from audit_trail.enums import EventKind, Outcome
from audit_trail.export import trail_csv
from audit_trail.models import Checkpoint, Event
from audit_trail.recording import record
from audit_trail.visible_events import without_hidden

PER_PAGE = 100


class TrailFilter(forms.Form):
    person = forms.CharField(required=False, max_length=200, label="Person")
    kind = forms.ChoiceField(required=False, choices=[("", "any"), *EventKind.choices], label="What")
    outcome = forms.ChoiceField(required=False, choices=[("", "any"), *Outcome.choices], label="Outcome")
    subject = forms.CharField(required=False, max_length=64, label="Id of case, slide or object")
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label="From")
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label="To")

    def events(self) -> QuerySet[Event]:
        """Newest first. A filter that is not valid is left out; the page shows its error."""
        wanted: dict[str, Any] = self.cleaned_data if self.is_valid() else getattr(self, "cleaned_data", {})
        events = Event.objects.order_by("-seq")
        if person := wanted.get("person"):
            events = events.filter(actor_name__icontains=person)
        for name in ("kind", "outcome"):
            if value := wanted.get(name):
                events = events.filter(**{name: value})
        if subject := wanted.get("subject"):
            events = events.filter(_about(subject.strip()))
        if since := wanted.get("since"):
            events = events.filter(at__date__gte=since)
        if until := wanted.get("until"):
            events = events.filter(at__date__lte=until)
        return events

    def described(self) -> dict[str, str]:
        return {name: str(value) for name, value in getattr(self, "cleaned_data", {}).items() if value}


@require_GET
@login_required
def trail(request: HttpRequest) -> HttpResponse:
    _check_auditor(request)
    form = TrailFilter(request.GET)
    events = without_hidden(requester(request), form.events())
    page = Paginator(events, PER_PAGE).get_page(request.GET.get("page"))
    shown = {"filter": form.described(), "page": page.number}
    response = render(
        request,
        "audit_trail/trail.html",
        {
            "form": form,
            "page": page,
            "last_checkpoint": Checkpoint.objects.order_by("-seq").first(),
            "checkpoint_file": checkpoint_file().name,
            "query": _without_page(request),
        },
    )
    with transaction.atomic():
        record(EventKind.TRAIL_VIEWED, actor=requester(request), details=shown, request=request)
    return response


@require_GET
@login_required
def trail_export(request: HttpRequest) -> HttpResponse:
    _check_auditor(request)
    form = TrailFilter(request.GET)
    data, digest = trail_csv(
        without_hidden(requester(request), form.events()).order_by("seq").iterator(chunk_size=2000)
    )
    with transaction.atomic():
        details = {"filter": form.described(), "sha256": digest, "bytes": len(data)}
        record(EventKind.TRAIL_EXPORTED, actor=requester(request), details=details, request=request)
    response = HttpResponse(data, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="metadet-trail.csv"'
    response["X-Content-SHA256"] = digest
    return response


def _check_auditor(request: HttpRequest) -> None:
    if not requester(request).has_role(Role.AUDITOR):
        raise Http404


def _about(subject: str) -> Q:
    try:
        key = UUID(subject)
    except ValueError:
        return Q(subject_id=subject)
    return Q(subject_id=str(key)) | Q(case_id=key) | Q(slide_id=key)


def _without_page(request: HttpRequest) -> str:
    query = request.GET.copy()
    query.pop("page", None)
    return query.urlencode()
