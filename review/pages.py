"""Pages of reading: worklist, case, viewer, signing, report. They work without script, but for the viewer."""

import json
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404, render, resolve_url
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.enums import Role
from accounts.errors import AccountsError
from accounts.models import User
from accounts.requester import requester
from review import assigning, policies, reading, signing, visibility, worklist
from review.enums import AssignmentRole, CallStage, Meaning
from review.errors import RecordChanged, ReviewError
from review.models import Assignment, Read, Signature
from review.node_table import node_table
from review.state import newest_call
from slides.models import Case, Slide

PER_PAGE = 50


# --- worklist --------------------------------------------------------------------------------------
@require_GET
@login_required
def worklist_page(request: HttpRequest) -> HttpResponse:
    _check_role(request, Role.READER, Role.ADJUDICATOR, Role.OPERATOR, Role.ADMINISTRATOR)
    search = request.GET.get("q", "").strip()
    names = worklist.filters_for(requester(request))
    chosen = request.GET.get("filter", "mine")
    chosen = chosen if chosen in names else "mine"
    rows = worklist.rows_for(requester(request), search=search)
    page = Paginator(worklist.filtered(rows, chosen), PER_PAGE).get_page(request.GET.get("page"))
    tabs = [
        {"name": name, "words": words, "count": len(worklist.filtered(rows, name)), "current": name == chosen}
        for name, words in names.items()
    ]
    context = {"page": page, "tabs": tabs, "chosen": chosen, "q": search, "any_rows": bool(rows)}
    return render(request, "review/worklist.html", context | {"reads": worklist.reads_cases(requester(request))})


@require_GET
@login_required
def next_case(request: HttpRequest) -> HttpResponse:
    _check_role(request, Role.READER, Role.ADJUDICATOR)
    after = request.GET.get("after", "")
    case = worklist.next_case(requester(request), after=_uuid(after))
    if case is None:
        messages.success(request, "No other case is waiting for you.")
        return HttpResponseRedirect(resolve_url("worklist"))
    return HttpResponseRedirect(resolve_url("case", case.pk))


# --- case ------------------------------------------------------------------------------------------
class AssignForm(forms.Form):
    reader = forms.ModelChoiceField(queryset=User.objects.none(), label="Person")
    role = forms.ChoiceField(choices=AssignmentRole.choices, label="As")
    due = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label="Due")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = User.objects.filter(is_active=True, roles__overlap=[Role.READER, Role.ADJUDICATOR])
        self.fields["reader"].queryset = people.order_by("printed_name")  # type: ignore[attr-defined]


@require_GET
@login_required
def case_page(request: HttpRequest, case_id: UUID) -> HttpResponse:
    return render(request, "review/case.html", _case_context(request, _visible_case(request, case_id)))


def _case_context(request: HttpRequest, case: Case, form: AssignForm | None = None) -> dict[str, Any]:
    user = requester(request)
    assignment = policies.assignment_of(user=user, case=case)
    slides = list(Slide.objects.visible_to(user).filter(case=case).select_related("node", "case"))
    context: dict[str, Any] = {"case": case, "assignment": assignment, "slides": slides}
    if assignment is not None and user.has_role(Role.READER, Role.ADJUDICATOR):
        context |= _reading_part(user, case, slides)
    if policies.can_assign(user=user):
        open_ = case.assignments.filter(withdrawn_at=None).select_related("reader").order_by("assigned_at")
        context |= {"assignments": open_, "assign_form": form or AssignForm(), "may_assign": True}
    if user.has_role(Role.AUDITOR):
        context["audit_slides"] = [slide for slide in slides if not visibility.is_blinded(user=user, slide=slide)]
    return context


def _reading_part(user: User, case: Case, slides: list[Slide]) -> dict[str, Any]:
    reads = {
        read.slide_id: read for read in Read.objects.of(user).filter(slide__in=slides).select_related("slide__node")
    }
    rows = []
    for slide in slides:
        read = reads.get(slide.pk)
        rows.append(
            {
                "row": worklist.SlideRow(slide, read),
                "unaided": newest_call(read, CallStage.UNAIDED) if read else None,
                "final": newest_call(read, CallStage.FINAL) if read else None,
                "others": visibility.other_reads(user=user, slide=slide),
                "why_not": ""
                if read
                else policies.reason_against(policies.check_can_start_read, user=user, slide=slide),
            }
        )
    signatures = list(Signature.objects.filter(case=case, signer=user).select_related("amendment"))
    return {
        "reading": True,
        "rows": rows,
        "nodes": node_table(list(reads.values()), slides) if reads else None,
        "sign_reason": policies.reason_against(policies.check_can_sign, user=user, case=case),
        "signatures": signatures,
        "may_amend": bool(signatures) and policies.can_amend(signatures[-1]),
    }


@require_POST
@login_required
def assign(request: HttpRequest, case_id: UUID) -> HttpResponse:
    case = _visible_case(request, case_id)
    if not policies.can_assign(user=requester(request)):
        raise Http404
    form = AssignForm(request.POST)
    if not form.is_valid():
        return render(request, "review/case.html", _case_context(request, case, form), status=400)
    data = form.cleaned_data
    try:
        assignment = assigning.assign_case(
            case=case,
            reader=data["reader"],
            role=AssignmentRole(data["role"]),
            due=data["due"],
            actor=requester(request),
            request=request,
        )
        messages.success(request, f"{assignment.reader} has this case now as {assignment.get_role_display()}.")
    except ReviewError as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(resolve_url("case", case.pk))


@require_POST
@login_required
def withdraw(request: HttpRequest, case_id: UUID, assignment_id: UUID) -> HttpResponse:
    case = _visible_case(request, case_id)
    if not policies.can_assign(user=requester(request)):
        raise Http404
    assignment = get_object_or_404(Assignment, pk=assignment_id, case=case)
    try:
        assigning.withdraw_assignment(assignment=assignment, actor=requester(request), request=request)
        messages.success(request, f"{assignment.reader} has this case no more.")
    except ReviewError as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(resolve_url("case", case.pk))


# --- reads -----------------------------------------------------------------------------------------
@require_http_methods(["GET", "POST"])
@login_required
def open_read(request: HttpRequest, slide_id: UUID) -> HttpResponse:
    """POST begins the read (or goes on with it); GET goes on, or asks first: a link alone begins nothing."""
    _check_role(request, Role.READER, Role.ADJUDICATOR)
    slide = Slide.objects.visible_to(requester(request)).select_related("case", "node").filter(pk=slide_id).first()
    if slide is None or policies.assignment_of(user=requester(request), case=slide.case) is None:
        raise Http404
    read = Read.objects.of(requester(request)).filter(slide=slide).first()
    if read is not None:
        return HttpResponseRedirect(resolve_url("read", read.pk))
    why_not = policies.reason_against(policies.check_can_start_read, user=requester(request), slide=slide)
    if request.method == "GET" or why_not:
        status = 409 if why_not and request.method == "POST" else 200
        return render(request, "review/start_read.html", {"slide": slide, "why_not": why_not}, status=status)
    read = reading.start_read(user=requester(request), slide=slide, request=request)
    return HttpResponseRedirect(resolve_url("read", read.pk))


@require_GET
@login_required
def read_page(request: HttpRequest, read_id: UUID) -> HttpResponse:
    read = reading.own_read(user=requester(request), read_id=read_id)
    boot = boot_data(request, mode="read", slide=read.slide) | {
        "read_id": str(read.pk),
        "urls": {
            "read": f"/api/reads/{read.pk}/",
            "ai": f"/api/reads/{read.pk}/ai/",
            "view": f"/api/slides/{read.slide_id}/view/",
            "worklist": resolve_url("worklist"),
            "case": resolve_url("case", read.slide.case_id),
            "back": resolve_url("case", read.slide.case_id),
            "sign": resolve_url("sign", read.slide.case_id),
            "next_case": f"{resolve_url('next-case')}?after={read.slide.case_id}",
        },
    }
    return render(request, "viewer.html", {"boot": boot})


def boot_data(request: HttpRequest, *, mode: str, slide: Slide) -> dict[str, Any]:
    """What the viewer's script starts from; nothing of the AI is in it."""
    return {
        "mode": mode,
        "user": {"name": str(requester(request)), "roles": list(requester(request).roles)},
        "csrf": get_token(request),
        "version": settings.VERSION,
        "slide_id": str(slide.pk),
        "read_id": None,
        "case": {"id": str(slide.case_id), "accession": slide.case.accession, "note": slide.case.note},
        "slide": {"name": slide.display_name, "node": slide.node.label if slide.node else ""},
    }


# --- signing ---------------------------------------------------------------------------------------
class SignForm(forms.Form):
    meaning = forms.ChoiceField(choices=Meaning.choices, label="Meaning of the signature")
    password = forms.CharField(
        max_length=200,
        strip=False,
        label="Your password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    manifest_sha256 = forms.RegexField(r"^[0-9a-f]{64}$", widget=forms.HiddenInput)


@require_http_methods(["GET", "POST"])
@login_required
def sign_page(request: HttpRequest, case_id: UUID) -> HttpResponse:
    """GET shows the manifest as it will be signed; POST signs exactly that, or says what changed."""
    case = _assigned_case(request, case_id)
    if request.method == "GET":
        return _sign_form(request, case)
    form = SignForm(request.POST)
    if not form.is_valid():
        return _sign_form(request, case, refusal="Choose the meaning and type your password.", status=400)
    try:
        signing.sign_case(
            user=requester(request),
            case=case,
            meaning=Meaning(form.cleaned_data["meaning"]),
            password=form.cleaned_data["password"],
            manifest_sha256=form.cleaned_data["manifest_sha256"],
            request=request,
        )
    except RecordChanged as error:
        return _sign_form(request, case, refusal=str(error), differences=error.extra["differences"], status=409)
    except (ReviewError, AccountsError) as error:
        return _sign_form(request, case, refusal=str(error), status=409 if isinstance(error, ReviewError) else 400)
    messages.success(request, "The case is signed.")
    return HttpResponseRedirect(resolve_url("report", case.pk))


def _sign_form(
    request: HttpRequest,
    case: Case,
    *,
    refusal: str = "",
    differences: list[dict[str, Any]] | None = None,
    status: int = 200,
) -> HttpResponse:
    if reason := policies.reason_against(policies.check_can_sign, user=requester(request), case=case):
        messages.error(request, f"The case cannot be signed now. {reason}")
        return HttpResponseRedirect(resolve_url("case", case.pk))
    with transaction.atomic():
        text, digest = signing.show_manifest(user=requester(request), case=case)
    meanings = signing.allowed_meanings(user=requester(request), case=case)
    context = {
        "case": case,
        "manifest": json.loads(text),
        "manifest_text": text,
        "digest": digest,
        "meanings": meanings,
        "refusal": refusal,
        "differences": differences or [],
    }
    return render(request, "review/sign.html", context, status=status)


@require_POST
@login_required
def amend(request: HttpRequest, case_id: UUID) -> HttpResponse:
    case = _assigned_case(request, case_id)
    signature = Signature.objects.filter(case=case, signer=requester(request)).order_by("-version").first()
    if signature is None:
        raise Http404
    try:
        signing.amend_case(
            signature=signature, user=requester(request), reason=request.POST.get("reason", "")[:500], request=request
        )
        messages.success(
            request, "The case is open again. What you signed stays readable; sign anew when you are done."
        )
    except ReviewError as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(resolve_url("case", case.pk))


@require_GET
@login_required
def report_page(request: HttpRequest, case_id: UUID) -> HttpResponse:
    """Every signature that the person may see under the case, oldest first, with what was signed. Made for printing."""
    case = _visible_case(request, case_id)
    signatures = [_printed(signature) for signature in visible_signatures(user=requester(request), case=case)]
    return render(request, "review/report.html", {"case": case, "signatures": signatures})


def visible_signatures(*, user: User, case: Case) -> list[Signature]:
    """Own ones; another's only where visibility lets the person see the other's reads of all slides of the case."""
    signatures = list(Signature.objects.filter(case=case).select_related("signer", "amendment").order_by("signed_at"))
    if all(signature.signer_id == user.pk for signature in signatures):
        return signatures
    slides = Slide.objects.visible_to(user).filter(case=case, state="ready")
    seen = [{read.reader_id for read in visibility.other_reads(user=user, slide=slide)} for slide in slides]
    return [
        signature
        for signature in signatures
        if signature.signer_id == user.pk or (seen and all(signature.signer_id in readers for readers in seen))
    ]


def _printed(signature: Signature) -> dict[str, Any]:
    return {
        "signature": signature,
        "manifest": json.loads(signature.manifest),
        "problems": signing.signature_problems(signature),
        "amendment": getattr(signature, "amendment", None),
    }


# --- who may open what -----------------------------------------------------------------------------
def _visible_case(request: HttpRequest, case_id: UUID) -> Case:
    case = Case.objects.visible_to(requester(request)).filter(pk=case_id).first()
    if case is None:
        raise Http404
    return case


def _assigned_case(request: HttpRequest, case_id: UUID) -> Case:
    _check_role(request, Role.READER, Role.ADJUDICATOR)
    case = _visible_case(request, case_id)
    if policies.assignment_of(user=requester(request), case=case) is None:
        raise Http404
    return case


def _check_role(request: HttpRequest, *roles: Role) -> None:
    if not requester(request).has_role(*roles):
        raise Http404


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
