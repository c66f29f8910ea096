"""Pages of the auditor: AI against readers, and the slide at issue with the AI and all reads. Seeing and exporting are events."""

import hashlib
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_GET

from accounts.enums import Role
from accounts.requester import requester
from analysis.models import ModelVersion
from audit_trail.enums import EventKind
from audit_trail.recording import record
from review import visibility
from review.enums import CallStage
from review.pages import boot_data
from review.reporting.agreement import Filter, discordances, not_counted, pairs, two_by_two
from review.reporting.agreement_csv import discordances_csv, figures_csv, pairs_csv
from review.reporting.drift_summary import drift_rows
from review.state import other_read_facts
from slides.enums import SlideState
from slides.models import Slide


class AgreementFilter(forms.Form):
    model = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(), required=False, empty_label=None, label="Model"
    )
    case = forms.CharField(required=False, max_length=64, label="Case")
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label="Read from")
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label="Read to")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        versions = ModelVersion.objects.order_by("-activated_at", "-registered_at")
        self.fields["model"].queryset = versions  # type: ignore[attr-defined]
        self.fields["model"].initial = versions.filter(state="active").first() or versions.first()

    def chosen(self) -> Filter:
        """A field that is not valid is left out; the page shows its error."""
        self.is_valid()
        data: dict[str, Any] = getattr(self, "cleaned_data", {})
        model = data.get("model") or self.fields["model"].initial
        return Filter(
            model_version_id=model.pk if model else None,
            accession=(data.get("case") or "").strip(),
            since=data.get("since"),
            until=data.get("until"),
        )


@require_GET
@login_required
def agreement_page(request: HttpRequest) -> HttpResponse:
    _check_auditor(request)
    form = AgreementFilter(request.GET or None)
    chosen = form.chosen()
    unaided = pairs(user=requester(request), stage=CallStage.UNAIDED, chosen=chosen)
    final = pairs(user=requester(request), stage=CallStage.FINAL, chosen=chosen)
    context = {
        "form": form,
        "model": _model(chosen),
        "tables": [two_by_two(unaided, CallStage.UNAIDED), two_by_two(final, CallStage.FINAL)],
        "discordances": discordances(unaided, final),
        "not_counted": not_counted(unaided, final),
        "any_pairs": bool(unaided or final),
        "drift": drift_rows(user=requester(request)),
        "query": request.GET.urlencode(),
        "blinded": visibility.blinded_slides(requester(request)).count(),
    }
    response = render(request, "review/agreement.html", context)
    with transaction.atomic():
        details = {"filter": _described(chosen), "slides": {"unaided": len(unaided), "final": len(final)}}
        record(EventKind.AGREEMENT_VIEWED, actor=requester(request), details=details, request=request)
    return response


@require_GET
@login_required
def agreement_export(request: HttpRequest, figure: str) -> HttpResponse:
    """`figures`, `slides` or `discordance` as CSV, under the page's filter."""
    _check_auditor(request)
    chosen = AgreementFilter(request.GET or None).chosen()
    unaided = pairs(user=requester(request), stage=CallStage.UNAIDED, chosen=chosen)
    final = pairs(user=requester(request), stage=CallStage.FINAL, chosen=chosen)
    if figure == "figures":
        data = figures_csv([two_by_two(unaided, CallStage.UNAIDED), two_by_two(final, CallStage.FINAL)])
    elif figure == "slides":
        data = pairs_csv([*unaided, *final])
    elif figure == "discordance":
        data = discordances_csv(discordances(unaided, final))
    else:
        raise Http404
    digest = hashlib.sha256(data).hexdigest()
    with transaction.atomic():
        details = {"what": f"agreement {figure}", "filter": _described(chosen), "sha256": digest, "bytes": len(data)}
        record(EventKind.EXPORTED, actor=requester(request), details=details, request=request)
    response = HttpResponse(data, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="metadet-agreement-{figure}.csv"'
    response["X-Content-SHA256"] = digest
    return response


@require_GET
@login_required
def audit_slide_page(request: HttpRequest, slide_id: UUID) -> HttpResponse:
    """The viewer with the AI and every locked read. The script asks for the AI result; that is the event."""
    _check_auditor(request)
    slide = Slide.objects.visible_to(requester(request)).select_related("case", "node").filter(pk=slide_id).first()
    if slide is None or slide.state != SlideState.READY:
        raise Http404
    visibility.check_ai_visible(user=requester(request), slide=slide)
    reads = visibility.other_reads(user=requester(request), slide=slide)
    ai_url = f"/api/agreement/slides/{slide.pk}/ai/"
    boot = boot_data(request, mode="audit", slide=slide) | {
        "urls": {
            "view": f"/api/slides/{slide.pk}/view/",
            "back": resolve_url("agreement"),
            "case": resolve_url("case", slide.case_id),
            "ai": ai_url,
        },
        "audit": {"reads": [other_read_facts(read) for read in reads], "ai_url": ai_url},
    }
    return render(request, "viewer.html", {"boot": boot})


def _check_auditor(request: HttpRequest) -> None:
    if not requester(request).has_role(Role.AUDITOR):
        raise Http404


def _described(chosen: Filter) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in (
            ("model_version", chosen.model_version_id),
            ("case", chosen.accession),
            ("since", chosen.since),
            ("until", chosen.until),
        )
        if value
    }


def _model(chosen: Filter) -> ModelVersion | None:
    return ModelVersion.objects.filter(pk=chosen.model_version_id).first() if chosen.model_version_id else None
