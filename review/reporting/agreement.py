"""AI against pathologist, slide by slide. Reads only; what may be counted for whom is visibility's to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from accounts.models import User
from analysis.enums import RunStatus
from analysis.metrics.intervals import wilson
from analysis.models import Run
from review import visibility
from review.enums import AssignmentRole, CallStage, CallValue, Phase
from review.models import Call, Read
from slides.models import Slide

FOUND = (CallValue.ITC, CallValue.MICRO, CallValue.MACRO)
SIZES = ("itc", "micro", "macro")
# The smallest deposit of each class in mm: what is at stake when nothing was measured.
AT_LEAST_MM = {CallValue.ITC: 0.1, CallValue.MICRO: 0.2, CallValue.MACRO: 2.0}
PREFERENCE = {AssignmentRole.ADJUDICATOR: 0, AssignmentRole.FIRST: 1, AssignmentRole.SECOND: 2}
REFERENCE_WORDS = {
    CallStage.UNAIDED: "the locked unaided call of the first reader, else of the second",
    CallStage.FINAL: "the final call of the adjudicator, else of the first reader, else of the second. "
    "These readers had seen the AI: agreement is biased upwards",
}


@dataclass(frozen=True)
class Filter:
    model_version_id: UUID | None = None
    accession: str = ""
    since: date | None = None
    until: date | None = None


@dataclass(frozen=True)
class AiCall:
    """The AI's word on a slide: `found` is None when it cannot be counted, `why` says so in words."""

    run: Run
    found: bool | None
    size_class: str
    score: float | None
    """Of the strongest lesion, else of the slide; None when the slide could not be assessed: 0 would read as negative."""
    longest_mm: float | None
    why: str = ""

    @property
    def weight(self) -> float:
        return self.score or 0.0


@dataclass(frozen=True)
class Pair:
    """One slide: the AI's word beside the reference call of one stage."""

    slide: Slide
    ai: AiCall
    read: Read
    stage: str
    call: str

    @property
    def found(self) -> bool | None:
        return None if self.call == CallValue.CANNOT_ASSESS else self.call in FOUND

    @property
    def counted(self) -> bool:
        return self.found is not None and self.ai.found is not None

    @property
    def why_not_counted(self) -> str:
        """In words; empty for a pair that is counted."""
        reader = "" if self.found is not None else "the reader could not assess the slide"
        return "; ".join(why for why in (self.ai.why, reader) if why)


@dataclass(frozen=True)
class Figure:
    """A proportion k of n with its Wilson interval; value and bounds are None for n = 0."""

    name: str
    definition: str
    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TwoByTwo:
    """AI (rows) against the reference (columns), in slides."""

    stage: str
    reference: str
    both: int
    ai_only: int
    reader_only: int
    neither: int
    left_out: int

    @property
    def n(self) -> int:
        return self.both + self.ai_only + self.reader_only + self.neither

    @property
    def figures(self) -> list[Figure]:
        return [
            _figure("Sensitivity", "Of the slides in which the reader found tumour: the share in which the AI did too.",
                    self.both, self.both + self.reader_only),
            _figure("Specificity", "Of the slides that the reader called negative: the share that the AI called negative too.",
                    self.neither, self.neither + self.ai_only),
            _figure("PPV", "Of the slides in which the AI found tumour: the share in which the reader did too.",
                    self.both, self.both + self.ai_only),
            _figure("NPV", "Of the slides that the AI called negative: the share that the reader called negative too.",
                    self.neither, self.neither + self.reader_only),
            _figure("Agreement", "The share of all counted slides on which the AI and the reader say the same.",
                    self.both + self.neither, self.n),
        ]  # fmt: skip


@dataclass(frozen=True)
class Discordance:
    pair: Pair
    kind: str
    words: str
    weight: float


def pairs(*, user: User, stage: CallStage, chosen: Filter) -> list[Pair]:
    """One per slide that has both a run of the chosen model version and a locked reference call of this stage."""
    runs: dict[UUID, Run] = {}
    for run in visibility.runs_for_statistics(user=user, model_version_id=chosen.model_version_id).order_by(
        "created_at"
    ):
        runs[run.slide_id] = run  # the newest stays
    reads = _reference_reads(list(runs), stage, chosen)
    calls = _newest_calls([read.pk for read in reads.values()], stage)
    found = [
        Pair(runs[slide_id].slide, ai_call(runs[slide_id]), read, stage, calls[read.pk])
        for slide_id, read in reads.items()
        if read.pk in calls
    ]
    return sorted(found, key=lambda pair: (pair.slide.case.accession, pair.slide.position, str(pair.slide.pk)))


def ai_call(run: Run) -> AiCall:
    """Tumour found: a lesion at or above the run's threshold. No lesion in a slide that was not read whole is no negative."""
    lesions = sorted(run.lesions.all(), key=lambda lesion: -lesion.score)
    counted = [lesion for lesion in lesions if lesion.score >= run.threshold]
    if run.status == RunStatus.CANNOT_ASSESS:
        reason = f": {run.status_reason}" if run.status_reason else ""
        return AiCall(run, None, "", None, None, f"the AI could not assess the slide{reason}")
    score = lesions[0].score if lesions else run.slide_score
    if counted:
        longest = max(counted, key=lambda lesion: lesion.longest_diameter_mm)
        return AiCall(run, True, longest.size_class, score, longest.longest_diameter_mm)
    if run.status == RunStatus.INCOMPLETE:
        return AiCall(run, None, "", score, None, "the AI found nothing, but part of the tissue was not judged")
    return AiCall(run, False, "", score, 0.0)


def two_by_two(found: Sequence[Pair], stage: CallStage) -> TwoByTwo:
    counted = [(pair.ai.found, pair.found) for pair in found if pair.counted]
    return TwoByTwo(
        stage=stage,
        reference=REFERENCE_WORDS[stage],
        both=counted.count((True, True)),
        ai_only=counted.count((True, False)),
        reader_only=counted.count((False, True)),
        neither=counted.count((False, False)),
        left_out=len(found) - len(counted),
    )


def discordances(unaided: Sequence[Pair], final: Sequence[Pair]) -> list[Discordance]:
    """Slides on which AI and reader differ, by the final call where there is one, else the unaided; most at stake first."""
    newest = {pair.slide.pk: pair for pair in [*unaided, *final]}
    found = [item for pair in newest.values() if pair.counted and (item := _discordance(pair)) is not None]
    return sorted(found, key=lambda item: (-item.weight, item.pair.slide.case.accession, str(item.pair.slide.pk)))


def not_counted(unaided: Sequence[Pair], final: Sequence[Pair]) -> list[Pair]:
    """Those that stand in no cell of the tables, slide by slide."""
    left_out = [pair for pair in [*unaided, *final] if not pair.counted]
    return sorted(left_out, key=lambda pair: (pair.slide.case.accession, pair.slide.position, str(pair.slide.pk)))


def _discordance(pair: Pair) -> Discordance | None:
    if pair.ai.found and not pair.found:
        return Discordance(
            pair, "ai_only", "the AI found tumour, the reader did not", pair.ai.weight * (pair.ai.longest_mm or 0.0)
        )
    if pair.found and not pair.ai.found:
        weight = (1.0 - pair.ai.weight) * AT_LEAST_MM[CallValue(pair.call)]
        return Discordance(pair, "reader_only", "the reader found tumour, the AI did not", weight)
    if pair.found and pair.ai.size_class != pair.call:
        steps = abs(SIZES.index(pair.ai.size_class) - SIZES.index(pair.call))
        return Discordance(pair, "size", "both found tumour, of another size class", 0.1 * steps * pair.ai.weight)
    return None


def _reference_reads(slide_ids: list[UUID], stage: CallStage, chosen: Filter) -> dict[UUID, Read]:
    reads = Read.objects.filter(slide__in=slide_ids, calls__stage=stage).exclude(phase=Phase.UNAIDED).distinct()
    if chosen.accession:
        reads = reads.filter(slide__case__accession__icontains=chosen.accession)
    if chosen.since:
        reads = reads.filter(started_at__date__gte=chosen.since)
    if chosen.until:
        reads = reads.filter(started_at__date__lte=chosen.until)
    preferred: dict[UUID, Read] = {}
    listed = sorted(
        reads.select_related("reader", "assignment"),
        key=lambda read: (PREFERENCE[AssignmentRole(read.assignment.role)], read.started_at),
    )
    for read in listed:
        preferred.setdefault(read.slide_id, read)
    return preferred


def _newest_calls(read_ids: list[UUID], stage: CallStage) -> dict[UUID, str]:
    calls = Call.objects.filter(read__in=read_ids, stage=stage).order_by("read_version")
    return dict(calls.values_list("read_id", "value"))


def _figure(name: str, definition: str, k: int, n: int) -> Figure:
    if n == 0:
        return Figure(name, definition, k, n, None, None, None)
    interval = wilson(k, n)
    return Figure(name, definition, k, n, k / n, interval.low, interval.high)
