"""docs/reference/states.md, made from the tables that the code itself obeys."""

from collections.abc import Mapping

from jobs.enums import JobState
from review.enums import PHASE_TRANSITIONS
from slides.enums import SLIDE_TRANSITIONS

# Jobs have no table of their own: jobs/queue.py and jobs/running.py move them by guarded UPDATEs.
JOB_TRANSITIONS: dict[str, tuple[str, ...]] = {
    JobState.QUEUED: (JobState.RUNNING, JobState.CANCELLED),
    JobState.RUNNING: (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED),
}


def states_page() -> str:
    return "\n".join(
        [
            "# States",
            "",
            "Made from the tables in the code by `manage.py write_reference`; do not edit.",
            "",
            *_diagram(
                "Slide", "Each state has a time limit and, when it is bad, a reason in words.", SLIDE_TRANSITIONS
            ),
            *_diagram("Read", "Back from signed only by an amendment, whose reason is kept.", PHASE_TRANSITIONS),
            *_diagram(
                "Job", "Running goes back to queued after an unexpected error, three attempts in all.", JOB_TRANSITIONS
            ),
        ]
    )


def _diagram(name: str, words: str, transitions: Mapping[str, tuple[str, ...]]) -> list[str]:
    arrows = [f"    {start} --> {end}" for start, ends in transitions.items() for end in ends]
    return [f"## {name}", "", words, "", "```mermaid", "stateDiagram-v2", *arrows, "```", ""]
