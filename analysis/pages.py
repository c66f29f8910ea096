"""The models page: administrators register, evaluate and choose the version for new runs; auditors look on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render, resolve_url
from django.views.decorators.http import require_GET, require_POST

from accounts.enums import Role
from accounts.requester import requester
from analysis.enums import ModelState, Profile
from analysis.errors import AnalysisError
from analysis.evaluating import cancel_evaluation, evaluation_jobs, request_evaluation
from analysis.evaluation_sets import HOW_TO_NAME_ONE, evaluation_sets
from analysis.model_intake import register_upload
from analysis.models import Evaluation, ModelVersion
from analysis.models_registry import activate_model, deactivate_model, is_evaluated
from jobs.enums import LIVE, JobKind, JobState
from jobs.errors import JobsError
from jobs.models import Job

Act = Callable[..., str]


@dataclass(frozen=True)
class VersionRow:
    version: ModelVersion
    evaluations: list[Evaluation]
    live_jobs: list[Job]
    last_problem: Job | None
    """The newest evaluation, when it failed or was cancelled."""
    runs: int
    may_be_activated: bool

    @property
    def badge(self) -> str:
        return "ready" if self.version.state == ModelState.ACTIVE else self.version.state

    @property
    def measured(self) -> str:
        """The newest figures in short, for the question before activating."""
        if not self.evaluations:
            return "Its card holds its evaluation."
        newest = self.evaluations[0]
        return f"{newest.set_name}: " + ", ".join(f"{figure.name} {figure.value}" for figure in newest.main_figures[:2])


@require_GET
@login_required
def models_page(request: HttpRequest) -> HttpResponse:
    if not requester(request).has_role(Role.ADMINISTRATOR, Role.AUDITOR):
        raise Http404
    versions = ModelVersion.objects.order_by("-registered_at").annotate(run_count=Count("runs"))
    return render(
        request,
        "analysis/models.html",
        {
            "rows": [_row(version) for version in versions.prefetch_related("evaluations__requested_by")],
            "may_act": requester(request).has_role(Role.ADMINISTRATOR),
            "none_active": not any(version.state == ModelState.ACTIVE for version in versions),
            "sets": evaluation_sets(),
            "no_sets": HOW_TO_NAME_ONE,
            "profiles": Profile.choices,
            "largest_mb": settings.MODEL_UPLOAD_MAX_BYTES // 2**20,
        },
    )


def _row(version: Any) -> VersionRow:
    jobs = evaluation_jobs(version)
    ended_badly = jobs and jobs[0].state in (JobState.FAILED, JobState.CANCELLED)
    return VersionRow(
        version=version,
        evaluations=list(version.evaluations.all()),
        live_jobs=[job for job in jobs if job.state in LIVE],
        last_problem=jobs[0] if ended_badly else None,
        runs=version.run_count,
        may_be_activated=version.state != ModelState.ACTIVE and is_evaluated(version),
    )


def act_of_an_administrator(act: Act) -> Callable[..., HttpResponse]:
    """A form of the models page: `act` gives the words of success; what is refused is said on the page."""

    @require_POST
    @login_required
    @wraps(act)
    def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if not requester(request).has_role(Role.ADMINISTRATOR):
            raise Http404
        try:
            messages.success(request, act(request, **kwargs))
        except (AnalysisError, JobsError) as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(resolve_url("models"))

    return page


@act_of_an_administrator
def register(request: HttpRequest) -> str:
    sent = request.FILES  # read before the mark, which reading sets
    version, new = register_upload(
        card=sent.get("card"),  # type: ignore[arg-type]  # one file a field
        weights=sent.get("weights"),  # type: ignore[arg-type]
        actor=requester(request),
        too_large=getattr(request, "upload_too_large", False),
    )
    if not new:
        return f"These weights are registered already, as {version}. Nothing was changed."
    return f"{version} is registered. Evaluate it, then it can be activated."


@act_of_an_administrator
def evaluate(request: HttpRequest, model_id: UUID) -> str:
    version = get_object_or_404(ModelVersion, pk=model_id)
    profile = request.POST.get("profile", "")
    request_evaluation(
        model_version=version,
        set_name=request.POST.get("set", ""),
        profile=Profile(profile) if profile in Profile.values else Profile.STANDARD,
        actor=requester(request),
    )
    return f"The evaluation of {version} is in the queue."


@act_of_an_administrator
def activate(request: HttpRequest, model_id: UUID) -> str:
    version = activate_model(model_version=get_object_or_404(ModelVersion, pk=model_id), actor=requester(request))
    return f"{version} is active: new runs use it. Earlier runs stay as they are."


@act_of_an_administrator
def deactivate(request: HttpRequest, model_id: UUID) -> str:
    version = deactivate_model(model_version=get_object_or_404(ModelVersion, pk=model_id), actor=requester(request))
    return f"{version} is out of use. No detection starts until a version is activated."


@act_of_an_administrator
def cancel(request: HttpRequest, job_id: UUID) -> str:
    job = get_object_or_404(Job, pk=job_id, kind=JobKind.EVALUATE_MODEL)
    job = cancel_evaluation(job=job, actor=requester(request))
    return "The evaluation is cancelled." if job.state not in LIVE else "The evaluation ends at its next block."
