"""The operator's pages: what arrived, what became of it, what it needs. AI results never stand here, only run states."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from accounts.enums import Role
from accounts.requester import requester
from jobs.enums import LIVE, JobKind, JobState
from jobs.models import Job
from slides import ingest, viewing
from slides.enums import ScaleState, SlideState, UploadState
from slides.models import Case, Slide, Upload
from slides.serializers import newest_jobs

PER_PAGE = 50
MOST_CASES_OFFERED = 500
NEEDS_A_PERSON = (SlideState.QUARANTINED, SlideState.FAILED)

Page = Callable[..., HttpResponse]


def for_roles(*roles: Role) -> Callable[[Page], Page]:
    """The page is for people with one of the roles; others are refused, and strangers sent to the log-in page."""

    def decorate(page: Page) -> Page:
        @wraps(page)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not requester(request).has_role(*roles):
                raise PermissionDenied
            return page(request, *args, **kwargs)

        return login_required(checked)

    return decorate


@dataclass(frozen=True)
class SlideRow:
    slide: Slide
    job: Job | None
    run: Job | None

    @property
    def live_job(self) -> Job | None:
        return self.job if self.job is not None and self.job.state in LIVE else None

    @property
    def live_run(self) -> Job | None:
        return self.run if self.run is not None and self.run.state in LIVE else None

    @property
    def may_detect(self) -> bool:
        ready = self.slide.state == SlideState.READY and self.slide.scale_state in ingest.SCALE_KNOWN
        return ready and (self.run is None or self.run.state in (JobState.FAILED, JobState.CANCELLED))

    @property
    def lacks_scale(self) -> bool:
        return self.slide.state == SlideState.READY and self.slide.scale_state in (
            ScaleState.MISSING,
            ScaleState.IMPLAUSIBLE,
        )

    @property
    def may_retry(self) -> bool:
        return self.slide.state in NEEDS_A_PERSON


def rows_of(slides: list[Slide]) -> list[SlideRow]:
    jobs = newest_jobs(slides, kind=JobKind.PREPARE_SLIDE)
    runs = newest_jobs(slides, kind=JobKind.DETECT)
    return [SlideRow(slide, jobs.get(slide.pk), runs.get(slide.pk)) for slide in slides]


@require_GET
@for_roles(Role.OPERATOR, Role.ADMINISTRATOR)
def slide_list(request: HttpRequest) -> HttpResponse:
    everything = Slide.objects.visible_to(requester(request))
    chosen = _chosen(request, everything)
    page = Paginator(chosen.select_related("case", "node").order_by("-created_at", "pk"), PER_PAGE).get_page(
        request.GET.get("page")
    )
    counts = dict(everything.order_by().values_list("state").annotate(n=Count("pk")))
    free, whole = ingest.storage_left()
    return render(
        request,
        "slides/list.html",
        {
            "page": page,
            "rows": rows_of(list(page)),
            "tabs": [
                (state.value, state.label, counts[state.value]) for state in SlideState if counts.get(state.value)
            ],
            "all_count": sum(counts.values()),
            "state": request.GET.get("state", ""),
            "q": request.GET.get("q", ""),
            "cases": Case.objects.visible_to(requester(request)).order_by("-created_at")[:MOST_CASES_OFFERED],
            "refused": Upload.objects.visible_to(requester(request))
            .filter(state=UploadState.REFUSED)
            .select_related("case"),
            "import_folders": settings.IMPORT_FOLDERS,
            "free_bytes": free,
            "whole_bytes": whole,
            "low_storage": free < whole / 20,
        },
    )


def _chosen(request: HttpRequest, slides: QuerySet[Slide]) -> QuerySet[Slide]:
    state = request.GET.get("state", "")
    if state in SlideState.values:
        slides = slides.filter(state=state)
    if wanted := request.GET.get("q", "").strip():
        slides = slides.filter(case__accession__icontains=wanted)
    return slides


@require_GET
@for_roles(Role.OPERATOR, Role.ADMINISTRATOR)
def slide_detail(request: HttpRequest, slide_id: UUID) -> HttpResponse:
    slide = _slide_or_404(request, slide_id)
    found = slide.properties or {}
    return render(
        request,
        "slides/detail.html",
        {
            "row": rows_of([slide])[0],
            "slide": slide,
            "levels": found.get("levels", []),
            "found": found,
            "associated": slide.associated_images.order_by("kind"),
            "corrections": slide.scale_corrections.select_related("entered_by").order_by("-entered_at"),
            "jobs": Job.objects.filter(subject_id=slide.pk).order_by("-created_at")[:20],
            "thumbnail": slide.state == SlideState.READY,
        },
    )


@require_GET
@for_roles(Role.OPERATOR, Role.ADMINISTRATOR, Role.AUDITOR)
def look(request: HttpRequest, slide_id: UUID) -> HttpResponse:
    """The viewer without any AI: for checking that a slide is right side up, whole and sharp."""
    slide = _slide_or_404(request, slide_id)
    if slide.state != SlideState.READY:
        return render(request, "slides/not_ready.html", {"slide": slide}, status=409)
    boot = {
        "mode": "look",
        "user": {"name": str(requester(request)), "roles": list(requester(request).roles)},
        "csrf": get_token(request),
        "version": settings.VERSION,
        "slide_id": str(slide.pk),
        "read_id": None,
        "case": {"id": str(slide.case_id), "accession": slide.case.accession},
        "slide": {"name": slide.display_name, "node": slide.node.label if slide.node else ""},
        "urls": {"view": reverse("slide-view", args=[slide.pk]), "back": _back(request, slide)},
    }
    return render(request, "viewer.html", {"boot": boot})


def _back(request: HttpRequest, slide: Slide) -> str:
    may_list = requester(request).has_role(Role.OPERATOR, Role.ADMINISTRATOR)
    return reverse("slide", args=[slide.pk]) if may_list else reverse("home")


def _slide_or_404(request: HttpRequest, slide_id: UUID) -> Slide:
    slide = viewing.visible_slide(requester(request), slide_id)
    if slide is None:
        raise Http404
    return slide
