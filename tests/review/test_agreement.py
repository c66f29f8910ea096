"""The agreement page: its numbers against scipy's, what is counted, what is left out, what is an event."""

import csv
import io
from itertools import product

import pytest
from scipy.stats import binomtest

from accounts.enums import Role
from accounts.models import User
from analysis.enums import ModelState, RunStatus
from audit_trail.models import Event
from review.enums import AssignmentRole, CallStage, CallValue
from review.models import Read
from review.reading import lock_read as lock
from review.reading import record_call, start_read
from review.reporting.agreement import Filter, discordances, pairs, two_by_two
from slides.models import Slide
from tests import factories
from tests.review.conftest import signed_in

# (AI finds tumour, reader's call): how many slides
MADE = {(True, "macro"): 5, (True, "negative"): 2, (False, "itc"): 1, (False, "negative"): 7}


@pytest.fixture
def quinn(db: None) -> User:
    return factories.make_user("quinn", Role.AUDITOR)


@pytest.fixture
def ann(db: None) -> User:
    return factories.make_user("ann", Role.READER)


def read_slide(user: User, slide: Slide, *, unaided: str, final: str | None = None) -> Read:
    read = start_read(user=user, slide=slide)
    reason = "blurred" if unaided == "cannot_assess" else ""
    record_call(user=user, read_id=read.pk, value=CallValue(unaided), reason=reason, expected_version=0)
    lock(user=user, read_id=read.pk, expected_version=1)
    if final:
        record_call(user=user, read_id=read.pk, value=CallValue(final), expected_version=2)
    read.refresh_from_db()
    return read


def make_set(ann: User, made: dict[tuple[bool, str], int] = MADE) -> None:
    factories.make_model()
    case = factories.make_case()
    factories.assign(case, ann)
    for (found, call), count in made.items():
        for _ in range(count):
            slide = factories.make_slide(case)
            factories.make_run(slide, scores=(0.8, 0.3) if found else (0.2,))
            read_slide(ann, slide, unaided=call, final="macro" if found else "negative")


def test_the_table_and_its_intervals_are_those_of_scipy(quinn: User, ann: User) -> None:
    make_set(ann)
    table = two_by_two(pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter()), CallStage.UNAIDED)
    assert (table.both, table.ai_only, table.reader_only, table.neither) == (5, 2, 1, 7)
    oracle = {"Sensitivity": (5, 6), "Specificity": (7, 9), "PPV": (5, 7), "NPV": (7, 8), "Agreement": (12, 15)}
    assert {figure.name: (figure.k, figure.n) for figure in table.figures} == oracle
    for figure in table.figures:
        interval = binomtest(figure.k, figure.n).proportion_ci(0.95, method="wilson")
        assert (figure.value, figure.low, figure.high) == pytest.approx((figure.k / figure.n, *interval))


def test_unaided_and_final_calls_are_kept_apart(quinn: User, ann: User) -> None:
    make_set(ann)
    final = two_by_two(pairs(user=quinn, stage=CallStage.FINAL, chosen=Filter()), CallStage.FINAL)
    assert (final.both, final.ai_only, final.reader_only, final.neither) == (7, 0, 0, 8)
    assert "seen the AI" in final.reference


def test_what_cannot_be_assessed_is_left_out_and_counted_as_such(quinn: User, ann: User) -> None:
    factories.make_model()
    case = factories.make_case()
    factories.assign(case, ann)
    for status, scores, call in (
        (RunStatus.COMPLETE, (0.9,), "cannot_assess"),
        (RunStatus.CANNOT_ASSESS, (), "negative"),
        (RunStatus.INCOMPLETE, (0.1,), "negative"),  # nothing found in part of a slide is no negative
        (RunStatus.INCOMPLETE, (0.9,), "macro"),  # a finding is one, wherever
    ):
        slide = factories.make_slide(case)
        factories.make_run(slide, status=status, scores=scores)
        read_slide(ann, slide, unaided=call)
    table = two_by_two(pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter()), CallStage.UNAIDED)
    assert (table.both, table.n, table.left_out) == (1, 1, 3)


def test_an_open_read_is_not_counted(quinn: User, ann: User) -> None:
    factories.make_model()
    case = factories.make_case()
    factories.assign(case, ann)
    slide = factories.make_slide(case)
    factories.make_run(slide)
    read = start_read(user=ann, slide=slide)
    record_call(user=ann, read_id=read.pk, value=CallValue.MACRO, expected_version=0)
    assert pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter()) == []


def test_the_adjudicators_call_comes_before_the_first_readers(quinn: User, ann: User) -> None:
    factories.make_model()
    cora = factories.make_user("cora", Role.ADJUDICATOR)
    case = factories.make_case()
    factories.assign(case, ann)
    slide = factories.make_slide(case)
    factories.make_run(slide)
    read_slide(ann, slide, unaided="negative", final="negative")
    factories.assign(case, cora, AssignmentRole.ADJUDICATOR)
    read = start_read(user=cora, slide=slide)
    record_call(user=cora, read_id=read.pk, value=CallValue.MACRO, expected_version=0)
    (final,) = pairs(user=quinn, stage=CallStage.FINAL, chosen=Filter())
    (unaided,) = pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter())
    assert (final.call, unaided.call) == ("macro", "negative")


def test_discordances_stand_most_at_stake_first_and_open_the_viewer(quinn: User, ann: User) -> None:
    factories.make_model()
    case = factories.make_case()
    factories.assign(case, ann)
    expected = []
    for scores, longest_mm, call in (
        ((0.6,), 0.5, "negative"),  # AI only, 0.30
        ((0.1,), 1.0, "macro"),  # reader only, 0.9 * 2.0
        ((0.9,), 4.0, "negative"),  # AI only, 3.6
        ((0.9,), 4.0, "macro"),  # agree
        ((0.8,), 4.0, "micro"),  # size class, 0.08
    ):
        slide = factories.make_slide(case)
        factories.make_run(slide, scores=scores, longest_mm=longest_mm)
        read_slide(ann, slide, unaided=call)
        expected.append(slide)
    found = discordances(pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter()), [])
    assert [item.pair.slide for item in found] == [expected[2], expected[1], expected[0], expected[4]]
    assert [item.kind for item in found] == ["ai_only", "reader_only", "ai_only", "size"]
    assert [item.weight for item in found] == pytest.approx([3.6, 1.8, 0.3, 0.08])
    client = signed_in(quinn)
    assert f"/agreement/slides/{expected[2].pk}/" in client.get("/agreement/").content.decode()
    page = client.get(f"/agreement/slides/{expected[2].pk}/")
    assert page.context["boot"]["audit"]["reads"][0]["unaided_call"]["value"] == "negative"
    assert client.get(page.context["boot"]["audit"]["ai_url"]).json()["run"]["slide_score"] == 0.9


def test_the_filter_chooses_model_version_case_and_period(quinn: User, ann: User) -> None:
    make_set(ann)
    old = factories.make_model("0", state=ModelState.RETIRED)
    slide = Slide.objects.order_by("position")[0]
    factories.make_run(slide, model=old, scores=(0.1,))
    (only,) = pairs(user=quinn, stage=CallStage.UNAIDED, chosen=Filter(model_version_id=old.pk))
    assert (only.slide, only.ai.found) == (slide, False)
    client = signed_in(quinn)
    for query, n in (
        ("", 15),
        ("?case=S26", 15),
        ("?case=other", 0),
        ("?until=2020-01-01", 0),
        (f"?model={old.pk}", 1),
    ):
        page = client.get(f"/agreement/{query}")
        assert page.context["tables"][0].n == n, query


def test_each_look_and_each_download_is_an_event_with_the_files_hash(quinn: User, ann: User) -> None:
    make_set(ann)
    client = signed_in(quinn)
    client.get("/agreement/")
    assert Event.objects.filter(kind="agreement_viewed").count() == 1
    for figure in ("figures", "slides", "discordance"):
        answer = client.get(f"/agreement/export/{figure}/")
        event = Event.objects.filter(kind="exported").latest("seq")
        assert event.details["sha256"] == answer["X-Content-SHA256"]
        assert event.details["what"] == f"agreement {figure}"
    assert client.get("/agreement/export/everything/").status_code == 404
    rows = list(csv.DictReader(io.StringIO(client.get("/agreement/export/slides/").content.decode())))
    counted = {(found == "true", call): 0 for found, call in product(("true", "false"), ("macro", "negative", "itc"))}
    for row in rows:
        if row["stage"] == "unaided":
            counted[row["ai_found"] == "true", row["reference_call"]] += 1
    assert {key: count for key, count in counted.items() if count} == MADE


def test_a_formula_in_a_name_stays_text(quinn: User, ann: User) -> None:
    make_set(ann, {(True, "macro"): 1})
    ann.printed_name = "=cmd|' /C calc'!A0"
    ann.save()
    body = signed_in(quinn).get("/agreement/export/slides/").content.decode()
    assert "'=cmd" in body


def test_an_auditor_who_reads_too_finds_nothing_of_slides_they_still_have_to_read(quinn: User, ann: User) -> None:
    make_set(ann, {(True, "negative"): 1})
    quinn.roles = [str(Role.AUDITOR), str(Role.READER)]
    quinn.save()
    slide = Slide.objects.get()
    score = str(slide.runs.get().slide_score)
    client = signed_in(quinn)
    assert score in client.get("/agreement/export/slides/").content.decode()
    factories.assign(slide.case, quinn, AssignmentRole.SECOND)
    page = client.get("/agreement/")
    assert page.context["tables"][0].n == 0
    assert page.context["discordances"] == []
    for figure in ("slides", "discordance"):
        assert score not in client.get(f"/agreement/export/{figure}/").content.decode()
    read_slide(quinn, slide, unaided="macro")
    assert client.get("/agreement/").context["tables"][0].n == 1


def test_an_empty_page_teaches_what_makes_it_fill(quinn: User) -> None:
    page = signed_in(quinn).get("/agreement/").content.decode()
    assert "Nothing to compare yet" in page
    assert "locked" in page


def test_the_page_is_for_auditors(quinn: User, ann: User) -> None:
    for person in (ann, factories.make_user("otto", Role.OPERATOR, Role.ADMINISTRATOR)):
        client = signed_in(person)
        assert client.get("/agreement/").status_code == 404
        assert client.get("/agreement/export/figures/").status_code == 404
