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
from slides.enums import ScaleState, SlideState, TileCheck, UploadState
from slides.models import Case, Slide, Upload
from slides.serializers import newest_jobs
from slides.wsi.facts import Facts, file_facts, quality_facts, scale_words, tile_facts
from slides.wsi.properties import SlideProperties
from slides.wsi.quality import Quality
from slides.wsi.store_plan import StorePlan

PER_PAGE = 50
MOST_CASES_OFFERED = 500
NEEDS_A_PERSON = (SlideState.QUARANTINED, SlideState.FAILED)
NOT_CHECKED = "not_checked"
NOTABLE_BLUR = 0.05
"""Share of the measured tissue that is out of focus, from which on the list says so."""
NOTABLE_INK = 0.001
"""Share of the scan under pen ink, from which on the list says so."""

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
    check: Job | None
    run: Job | None

    @property
    def live_check(self) -> Job | None:
        return self.check if self.check is not None and self.check.state in LIVE else None

    @property
    def failed_again(self) -> str:
        """Why a ready slide could not be prepared once more; empty where it could, or was not asked to."""
        failed = self.job is not None and self.job.state in (JobState.FAILED, JobState.CANCELLED)
        if self.slide.state != SlideState.READY or self.job is None or not failed:
            return ""
        return self.job.error or "It was stopped."

    @property
    def remarks(self) -> list[str]:
        """What an operator should look at on a slide that is ready."""
        return quality_remarks(self.slide)

    @property
    def live_job(self) -> Job | None:
        return self.job if self.job is not None and self.job.state in LIVE else None

    @property
    def live_run(self) -> Job | None:
        return self.run if self.run is not None and self.run.state in LIVE else None

    @property
    def may_detect(self) -> bool:
        ready = self.slide.state == SlideState.READY and self.slide.scale_state in ingest.SCALE_KNOWN
        ready = ready and self.slide.tile_check == TileCheck.DONE
        return ready and (self.run is None or self.run.state in (JobState.FAILED, JobState.CANCELLED))

    @property
    def lacks_scale(self) -> bool:
        return self.slide.state == SlideState.READY and self.slide.scale_state in (
            ScaleState.MISSING,
            ScaleState.IMPLAUSIBLE,
        )

    @property
    def may_retry(self) -> bool:
        """Something went wrong that another attempt may put right."""
        if self.live_job is not None:
            return False
        unchecked = self.slide.state == SlideState.READY and self.slide.tile_check == TileCheck.FAILED
        return self.slide.state in NEEDS_A_PERSON or unchecked or bool(self.failed_again)

    @property
    def may_prepare_again(self) -> bool:
        return self.slide.state == SlideState.READY and self.live_job is None and not self.may_retry

    @property
    def scale_to_do(self) -> str:
        return scale_words(self.slide.scale_state) if self.lacks_scale else ""


def quality_remarks(slide: Slide) -> list[str]:
    """Sentences on blur and ink that are worth a look; few slides have any."""
    if slide.state != SlideState.READY or not slide.quality:
        return []
    facts = dict(quality_facts(Quality.from_json(slide.quality)))
    remarks = []
    if (slide.quality.get("blurred_share") or 0) >= NOTABLE_BLUR:
        remarks.append(f"Out of focus: {facts['Out of focus']}.")
    if slide.quality["ink_share"] >= NOTABLE_INK:
        remarks.append(f"Pen ink: {facts['Pen ink']}.")
    return remarks


def facts_of(slide: Slide) -> Facts:
    """The same words as `manage.py check_slide`. Empty before the file was read."""
    if not slide.properties or not slide.store_plan:
        return []
    return file_facts(SlideProperties.from_json(slide.properties), StorePlan.from_json(slide.store_plan))


def quality_of(slide: Slide) -> Facts:
    """Empty for slides that were prepared before quality was measured."""
    facts: Facts = []
    if slide.tile_check == TileCheck.DONE:
        facts += tile_facts(corrupt=slide.corrupt_tiles, missing=slide.missing_tiles)
    return facts + (quality_facts(Quality.from_json(slide.quality)) if slide.quality else [])


def rows_of(slides: list[Slide]) -> list[SlideRow]:
    jobs = newest_jobs(slides, kind=JobKind.PREPARE_SLIDE)
    checks = newest_jobs(slides, kind=JobKind.CHECK_SLIDE)
    runs = newest_jobs(slides, kind=JobKind.DETECT)
    return [SlideRow(slide, jobs.get(slide.pk), checks.get(slide.pk), runs.get(slide.pk)) for slide in slides]


@require_GET
@for_roles(Role.OPERATOR, Role.ADMINISTRATOR)
def slide_list(request: HttpRequest) -> HttpResponse:
    everything = Slide.objects.visible_to(requester(request))
    chosen = _chosen(request, everything)
    page = Paginator(chosen.select_related("case", "node").order_by("-created_at", "pk"), PER_PAGE).get_page(
        request.GET.get("page")
    )
    counts = dict(everything.order_by().values_list("state").annotate(n=Count("pk")))
    unchecked = _not_checked(everything).count()
    free, whole = ingest.storage_left()
    return render(
        request,
        "slides/list.html",
        {
            "page": page,
            "rows": rows_of(list(page)),
            "tabs": [
                *((state.value, state.label, counts[state.value]) for state in SlideState if counts.get(state.value)),
                *([(NOT_CHECKED, "ready, not every tile checked", unchecked)] if unchecked else []),
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
            "floor_bytes": settings.DISK_FLOOR_BYTES,
            "quota_used": ingest.quota_used(requester(request)),
            "quota": settings.UPLOAD_QUOTA_BYTES,
            "low_storage": free < whole / 20,
        },
    )


def _chosen(request: HttpRequest, slides: QuerySet[Slide]) -> QuerySet[Slide]:
    state = request.GET.get("state", "")
    if state in SlideState.values:
        slides = slides.filter(state=state)
    elif state == NOT_CHECKED:
        slides = _not_checked(slides)
    if wanted := request.GET.get("q", "").strip():
        slides = slides.filter(case__accession__icontains=wanted)
    return slides


def _not_checked(slides: QuerySet[Slide]) -> QuerySet[Slide]:
    return slides.filter(state=SlideState.READY).exclude(tile_check=TileCheck.DONE)


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
            "found": found,
            "facts": facts_of(slide),
            "quality": quality_of(slide),
            "same_file": _same_file(slide),
            "associated": slide.associated_images.order_by("kind"),
            "corrections": slide.scale_corrections.select_related("entered_by").order_by("-entered_at"),
            "jobs": Job.objects.filter(subject_id=slide.pk).order_by("-created_at")[:20],
            "thumbnail": slide.state == SlideState.READY,
        },
    )


def _same_file(slide: Slide) -> QuerySet[Slide]:
    """Other slides of the same content: linked ones, and the one that this is a duplicate of."""
    slides = Slide.objects.present().exclude(pk=slide.pk).select_related("case", "node").order_by("created_at")
    return slides.filter(sha256=slide.sha256) if slide.sha256 else slides.none()


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
