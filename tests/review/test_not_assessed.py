"""What the AI could not assess, or did not read whole, is negative nowhere: API, worklist, agreement, what is signed."""

import csv
import io

import pytest
from django.db import IntegrityError, transaction

from accounts.enums import Role
from analysis.enums import Profile, RunStatus, TriageBand
from analysis.models import Run
from review.enums import CallStage
from review.reporting.agreement import Filter, ai_call, discordances, pairs
from review.reporting.drift_summary import NEWEST_RUNS, drift_rows
from tests import factories
from tests.review.conftest import ReadClient, Ward, signed_in

REASON = "40% of the tissue is out of focus. Scan the slide again."


def not_assessed(ward: Ward, status: RunStatus, scores: tuple[float, ...] = ()) -> Run:
    """The newest run of the ward's slide."""
    cannot = status == RunStatus.CANNOT_ASSESS
    return factories.make_run(
        ward.slide,
        scores=scores,
        status=status,
        status_reason=REASON,
        slide_score=None if cannot else 0.01,
        triage=TriageBand.CANNOT_ASSESS if cannot else TriageBand.MUST_REVIEW,
        triage_words=f"The AI cannot assess this slide. {REASON}" if cannot else f"Must be reviewed. {REASON}",
    )


@pytest.mark.parametrize("status", [RunStatus.INCOMPLETE, RunStatus.CANNOT_ASSESS])
def test_the_database_keeps_no_such_run_in_the_negative_band(ward: Ward, status: RunStatus) -> None:
    with pytest.raises(IntegrityError, match="only_a_complete_run"), transaction.atomic():
        factories.make_run(ward.slide, status=status, triage=TriageBand.AI_NEGATIVE)
    factories.make_run(ward.slide, triage=TriageBand.AI_NEGATIVE)


@pytest.mark.parametrize("status", [RunStatus.INCOMPLETE, RunStatus.CANNOT_ASSESS])
def test_the_reader_is_told_why_and_no_word_of_it_is_negative(ward: Ward, status: RunStatus) -> None:
    not_assessed(ward, status)
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    ann.lock()
    run = ann.ai()["run"]
    assert run["status"] == status
    assert run["status_reason"] == REASON
    assert REASON in run["triage"]["words"]
    assert run["triage"]["band"] in ("must_review", "cannot_assess")
    assert run["slide_probability"] is None
    assert "negative" not in f"{run['triage']}".lower()


@pytest.mark.parametrize("status", [RunStatus.INCOMPLETE, RunStatus.CANNOT_ASSESS])
@pytest.mark.parametrize("call", ["negative", "macro"])
def test_the_agreement_page_counts_it_neither_way(ward: Ward, status: RunStatus, call: str) -> None:
    not_assessed(ward, status)
    ann = ReadClient(ward.ann, ward.slide)
    ann.call(call)
    ann.lock()
    (pair,) = pairs(user=ward.quinn, stage=CallStage.UNAIDED, chosen=Filter())
    assert pair.ai.found is None
    assert discordances([pair], []) == []
    page = signed_in(ward.quinn).get("/agreement/")
    assert page.context["tables"][0].left_out == 1
    assert page.context["tables"][0].n == 0
    rows = list(csv.DictReader(io.StringIO(signed_in(ward.quinn).get("/agreement/export/slides/").content.decode())))
    assert rows[0]["ai_found"] == ""
    assert REASON in rows[0]["ai_not_counted_because"] or "part of the tissue" in rows[0]["ai_not_counted_because"]
    assert (rows[0]["ai_status"], rows[0]["ai_longest_mm"]) == (status, "")
    assert rows[0]["ai_score"] == ("" if status == RunStatus.CANNOT_ASSESS else "0.01")
    listed = page.content.decode().split("Slides that are not counted", maxsplit=1)[1]
    assert ">not assessed</span>" in listed
    assert "negative</td>" not in listed


def test_a_finding_in_a_slide_that_cannot_be_assessed_is_shown_but_no_call(ward: Ward) -> None:
    run = not_assessed(ward, RunStatus.CANNOT_ASSESS, scores=(0.95,))
    assert ai_call(run).found is None
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    ann.lock()
    assert len(ann.ai()["lesions"]) == 1


@pytest.mark.parametrize("status", [RunStatus.INCOMPLETE, RunStatus.CANNOT_ASSESS])
def test_worklist_case_and_slide_pages_say_nothing_of_it(ward: Ward, status: RunStatus) -> None:
    """No AI word reaches lists and counts, so none can be read as negative there."""
    clients = {"reader": signed_in(ward.ann), "operator": signed_in(ward.otto)}
    paths = ["/worklist/", f"/cases/{ward.case.pk}/", "/slides/", f"/api/slides/{ward.slide.pk}/"]
    before = {(name, path): _words(client, path) for name, client in clients.items() for path in paths}
    not_assessed(ward, status)
    assert {(name, path): _words(client, path) for name, client in clients.items() for path in paths} == before


def _words(client, path: str) -> str:  # type: ignore[no-untyped-def]
    """But what changes from one moment to the next: tokens, times, and the room on the disk of the machine."""
    text = client.get(path).content.decode()
    passing = ("csrf", "<time", "storage:")
    return "\n".join(line for line in text.splitlines() if not any(word in line.lower() for word in passing))


def test_what_is_signed_says_that_the_ai_could_not_assess(ward: Ward) -> None:
    not_assessed(ward, RunStatus.CANNOT_ASSESS)
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("negative")
    shown = ann.http.get(f"/api/cases/{ward.case.pk}/manifest/").json()
    (ai,) = [slide["read"]["ai"] for slide in shown["manifest"]["slides"]]
    assert (ai["status"], ai["status_reason"], ai["slide_score"]) == ("cannot_assess", REASON, None)
    assert ai["triage"] == "cannot_assess"
    page = ann.http.get(f"/cases/{ward.case.pk}/sign/").content.decode()
    assert f"the AI could not assess the slide: {REASON}" in page
    assert "AI-negative" not in page
    assert ann.sign().status_code == 200
    report = ann.http.get(f"/cases/{ward.case.pk}/report/").content.decode()
    assert "the AI could not assess the slide" in report
    assert "0 lesions" not in report


def test_what_is_signed_names_scores_that_are_not_calibrated_and_probabilities_that_are(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    assert ann.sign().status_code == 200
    report = ann.http.get(f"/cases/{ward.case.pk}/report/").content.decode()
    assert "slide score 0.900 (not calibrated)" in report
    assert "AI score 0.9000, not calibrated" in report
    assert "Not calibrated: the scores are the network&#x27;s own and no probabilities." in report

    second = factories.make_case("S26-0002")
    slide = factories.make_slide(second)
    promise = "AI-positive band. Of slides without tumour at most 5% fall here."
    run = factories.make_run(
        slide,
        slide_probability=0.9312,
        triage=TriageBand.AI_POSITIVE,
        triage_words=promise,
        calibration="0123456789abcdef",
    )
    run.lesions.update(probability=0.8421)
    factories.assign(second, ward.ann)
    ann = ReadClient(ward.ann, slide)
    ann.finish("macro")
    assert ann.ai()["run"]["calibrated"]
    assert ann.sign().status_code == 200
    report = ann.http.get(f"/cases/{second.pk}/report/").content.decode()
    assert "tumour probability 0.9312 (calibrated)" in report
    assert "AI probability 0.84" in report
    assert promise in report
    assert "not calibrated" not in report.lower()


def test_the_drift_table_means_the_newest_runs_and_marks_what_has_shifted(ward: Ward) -> None:
    for n in range(12):
        slide = factories.make_slide(ward.case)
        factories.make_run(slide, drift={"z_haematoxylin": 0.2 * (-1) ** n, "z_eosin": 3.5 + n / 100})
    not_assessed(ward, RunStatus.CANNOT_ASSESS)
    (row,) = drift_rows(user=ward.quinn)
    assert row.runs == 14
    assert row.cannot_assess == 1
    assert row.unlike == 12
    by_name = {shift.words: shift for shift in row.shifts}
    assert by_name["eosin"].mean_z == pytest.approx(3.555)
    assert by_name["eosin"].shifted
    assert not by_name["haematoxylin"].shifted
    assert by_name["colour saturation"].mean_z is None
    page = signed_in(ward.quinn).get("/agreement/").content.decode()
    assert "shifted 3.6" in page
    assert "no reference" in page


def test_only_the_newest_runs_of_each_profile_count(ward: Ward) -> None:
    slide = factories.make_slide(ward.case)
    for profile, runs in ((Profile.STANDARD, NEWEST_RUNS + 3), (Profile.FAST, 2)):
        for n in range(runs):
            factories.make_run(slide, profile=profile, scores=(), drift={"z_eosin": float(runs - n)})
    rows = {row.profile: row for row in drift_rows(user=ward.quinn)}
    assert {profile: row.runs for profile, row in rows.items()} == {Profile.STANDARD: NEWEST_RUNS, Profile.FAST: 2}
    means = {shift.words: shift.mean_z for shift in rows[Profile.STANDARD].shifts}
    assert means["eosin"] == pytest.approx((1 + NEWEST_RUNS) / 2)


def test_drift_is_the_auditors_alone_and_leaves_out_what_they_have_to_read(ward: Ward) -> None:
    assert drift_rows(user=ward.otto) == []
    assert [row.runs for row in drift_rows(user=ward.quinn)] == [1]
    ward.ben.roles = [str(Role.READER), str(Role.AUDITOR)]
    ward.ben.save()
    assert drift_rows(user=ward.ben) == []
