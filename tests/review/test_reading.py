"""The acts of a reader over HTTP: what they do, what they refuse, and the one event each leaves."""

import gzip

import pytest
from django.db import DatabaseError, connection, transaction

from audit_trail.models import Event
from review.models import Call, Decision, Read
from slides.enums import Protocol
from tests import factories
from tests.review.conftest import ReadClient, Ward, signed_in

SQUARE = [[[100, 100], [4100, 100], [4100, 2100], [100, 2100]]]


def kinds_since(seq: int) -> list[str]:
    return list(Event.objects.filter(seq__gt=seq).order_by("seq").values_list("kind", flat=True))


def head() -> int:
    last = Event.objects.order_by("-seq").first()
    return last.seq if last and last.seq else 0


def test_a_read_goes_from_unaided_to_final(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    assert ann.state()["phase"] == "unaided"
    ann.call("negative")
    assert ann.lock()["phase"] == "aided"
    found = ann.ai()
    assert [lesion["score"] for lesion in found["lesions"]] == [0.9, 0.7, 0.2]
    ann.accept(found["lesions"][0]["id"])
    state = ann.reject(found["lesions"][1]["id"], "germinal_centre")
    assert state["decisions"][found["lesions"][1]["id"]]["reason"] == "germinal_centre"
    assert not state["can"]["sign"]
    state = ann.call("macro")
    assert state["phase"] == "final"
    assert state["unaided_call"]["value"] == "negative"
    assert state["final_call"]["value"] == "macro"
    assert state["can"]["sign"], state["why_not"]["sign"]


def test_each_act_leaves_exactly_one_event_and_locking_two(ward: Ward) -> None:
    start = head()
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    ann.call("micro")
    ann.post("marks", outline=SQUARE)
    ann.lock()
    lesion = ann.ai()["lesions"][0]["id"]
    ann.accept(lesion)
    ann.post("undo")
    ann.reject(lesion)
    ann.http.post(
        f"{ann.base}progress/", {"viewed_fraction": 0.4, "active_seconds": 12.5}, content_type="application/json"
    )
    ann.call("macro")
    assert [kind for kind in kinds_since(start) if kind not in ("logged_in", "slide_opened")] == [
        *("read_started", "call_recorded", "call_recorded", "mark_added", "read_locked", "ai_revealed"),
        *("lesion_accepted", "decision_undone", "lesion_rejected", "viewing_reported", "call_recorded"),
    ]


def test_a_refused_act_changes_nothing_and_leaves_no_event(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    before, start = ann.state(), head()
    assert ann.post("lock", confirm=True).status_code == 409
    assert ann.post("lock", confirm=False).status_code == 400
    assert ann.post("calls", call="cannot_assess").status_code == 400
    assert ann.post("calls", call="perhaps").status_code == 400
    assert ann.post("undo").status_code == 409
    assert ann.post("marks", outline=[[[1, 1], [2, 2]]]).status_code == 400
    assert ann.post("marks", outline=[[[1, 1], [99_999, 1], [5, 5]]]).status_code == 400
    assert ann.post("decisions", lesion=str(ward.run.lesions.get(rank=1).pk), verdict="accepted").status_code == 409
    assert ann.state() == before
    assert kinds_since(start) == []


def test_the_unaided_call_is_fixed_by_the_lock_and_a_second_lock_is_refused(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("itc")
    ann.lock()
    assert ann.post("lock", confirm=True).status_code == 409
    ann.call("negative")  # after the lock a call is the final one
    state = ann.state()
    assert (state["unaided_call"]["value"], state["final_call"]["value"]) == ("itc", "negative")


def test_a_stale_version_is_told_the_present_state(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    answer = ann.post("calls", version=0, call="macro")
    assert answer.status_code == 409
    assert answer.json()["error"] == "stale"
    assert answer.json()["current"] == ann.state()
    assert ann.state()["unaided_call"]["value"] == "negative"


def test_the_same_key_gets_the_same_answer_and_happens_once(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    first = ann.post("calls", key="k1", version=0, call="micro")
    again = ann.post("calls", key="k1", version=0, call="micro")
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert Call.objects.count() == 1
    assert Event.objects.filter(kind="call_recorded").count() == 1
    assert ann.post("calls", key="k1", version=1, call="macro").status_code == 400


def test_a_refused_request_can_be_sent_again_with_its_key(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    assert ann.post("lock", key="k", version=0, confirm=True).status_code == 409
    ann.call("negative")
    assert ann.post("lock", key="k2", version=1, confirm=True).status_code == 200


def test_undo_spans_page_loads_and_restores_what_held_before(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    ann.lock()
    one, two = (lesion["id"] for lesion in ann.ai()["lesions"][:2])
    ann.accept(one)
    ann.reject(one, "crush")
    ann.accept(two)
    later = signed_in(ward.ann)  # a new log-in, another browser
    seen = []
    for _ in range(3):
        version = later.get(ann.base).json()["version"]
        answer = later.post(f"{ann.base}undo/", {"expected_version": version}, content_type="application/json")
        decisions = answer.json()["decisions"]
        seen.append((decisions[one]["verdict"], decisions.get(two, {}).get("verdict")))
    assert seen == [("rejected", "undecided"), ("accepted", "undecided"), ("undecided", "undecided")]
    answer = later.post(f"{ann.base}undo/", {"expected_version": version + 1}, content_type="application/json")
    assert answer.status_code == 409
    assert Decision.objects.count() == 6  # nothing was taken away, each undo was added


def test_undo_takes_back_a_mark_but_never_one_of_the_locked_half(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("micro")
    ann.post("marks", outline=SQUARE)
    assert len(ann.state()["marks"]) == 1
    ann.post("undo")
    assert ann.state()["marks"] == []
    ann.post("marks", outline=SQUARE)
    ann.lock()
    assert ann.post("undo").status_code == 409
    mark = ann.state()["marks"][0]
    assert ann.post(f"marks/{mark['id']}/remove").status_code == 409
    ann.post("marks", outline=SQUARE)
    late = ann.state()["marks"][-1]
    assert late["missed_by_ai"]
    assert not mark["missed_by_ai"]
    ann.post("undo")
    assert [item["id"] for item in ann.state()["marks"]] == [mark["id"]]


def test_a_mark_is_measured_with_the_slides_scale(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.post("marks", outline=SQUARE)
    mark = ann.state()["marks"][0]
    assert mark["area_mm2"] == pytest.approx(2.0 * 1.0)  # 4000 x 2000 px at 0.5 um
    assert mark["longest_diameter_mm"] == pytest.approx(5**0.5)


def test_a_decision_after_the_final_call_asks_for_the_final_call_again(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    assert ann.state()["phase"] == "final"
    ann.post("undo")
    state = ann.state()
    assert state["phase"] == "aided"
    assert not state["can"]["sign"]


def test_rejecting_needs_a_reason_and_other_needs_words(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call()
    ann.lock()
    lesion = ann.ai()["lesions"][0]["id"]
    assert ann.post("decisions", lesion=lesion, verdict="rejected").status_code == 400
    assert ann.post("decisions", lesion=lesion, verdict="rejected", reason="other").status_code == 400
    assert ann.post("decisions", lesion=lesion, verdict="rejected", reason="other", text="ink").status_code == 200


def test_a_lesion_of_another_slide_is_not_there(ward: Ward) -> None:
    other = factories.make_run(factories.make_slide(factories.make_case("S26-0002")))
    ann = ReadClient(ward.ann, ward.slide)
    ann.call()
    ann.lock()
    assert ann.post("decisions", lesion=str(other.lesions.get().pk), verdict="accepted").status_code == 404


def test_locking_before_detection_has_ended_shows_the_result_when_it_comes(ward: Ward) -> None:
    slide = factories.make_slide(ward.case)
    ann = ReadClient(ward.ann, slide)
    ann.call()
    start = head()
    assert ann.lock()["revealed_at"] is None
    assert kinds_since(start) == ["read_locked"]
    nothing = ann.ai()
    assert nothing["run"] is None
    assert "no AI result" in nothing["message"]
    run = factories.make_run(slide)
    assert ann.ai()["run"]["id"] == str(run.pk)
    ann.ai()
    assert kinds_since(start) == ["read_locked", "ai_revealed"]
    factories.make_run(slide, scores=(0.1,))
    assert ann.ai()["run"]["id"] == str(run.pk)  # what was revealed stays


def test_the_heatmap_goes_out_as_it_lies(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call()
    ann.lock()
    answer = ann.http.get(ann.ai()["heatmap"]["url"])
    assert answer["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.content) == bytes(range(12))
    assert "no-store" in answer["Cache-Control"]


def test_second_look_shows_the_ai_after_a_negative_call_only(ward: Ward) -> None:
    case = factories.make_case("S26-0003", protocol=Protocol.SECOND_LOOK)
    factories.assign(case, ward.ann)
    for call, status in (("negative", 200), ("micro", 404)):
        slide = factories.make_slide(case)
        factories.make_run(slide)
        ann = ReadClient(ward.ann, slide)
        ann.call(call)
        ann.lock()
        assert ann.http.get(f"{ann.base}ai/").status_code == status
        assert ann.call(call)["phase"] == "final"


def test_concurrent_shows_the_ai_from_the_start_and_says_so(ward: Ward) -> None:
    case = factories.make_case("S26-0004", protocol=Protocol.CONCURRENT)
    factories.assign(case, ward.ann)
    slide = factories.make_slide(case)
    factories.make_run(slide)
    ann = ReadClient(ward.ann, slide)
    assert ann.state()["protocol"] == "concurrent"
    assert len(ann.ai()["lesions"]) == 1
    assert ann.call("macro")["unaided_call"] is None


def test_a_link_alone_begins_no_read(ward: Ward) -> None:
    client = signed_in(ward.ann)
    page = client.get(f"/slides/{ward.slide.pk}/read/")
    assert page.status_code == 200
    assert not Read.objects.exists()


def test_a_slide_of_a_case_that_is_not_ones_own_is_not_there(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    for client in (signed_in(ward.eve), signed_in(ward.ben), signed_in(ward.cora)):
        assert client.get(ann.base).status_code in (403, 404)
        assert (
            client.post(f"{ann.base}undo/", {"expected_version": 0}, content_type="application/json").status_code == 404
        )
    assert signed_in(ward.eve).post(f"/slides/{ward.slide.pk}/read/").status_code == 404
    assert signed_in(ward.otto).get(ann.base).status_code == 403


def test_a_withdrawn_reader_loses_the_read_at_the_next_request(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call()
    assignment = ward.case.assignments.get(reader=ward.ann)
    signed_in(ward.otto).post(f"/cases/{ward.case.pk}/assignments/{assignment.pk}/withdraw/")
    assert ann.http.get(ann.base).status_code == 404
    assert ann.http.get(f"/reads/{ann.read_id}/").status_code == 404
    assert Event.objects.filter(kind="case_unassigned").count() == 1


# --- what the database itself refuses --------------------------------------------------------------
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE review_call SET value = 'macro'",
        "DELETE FROM review_call",
        "UPDATE review_decision SET verdict = 'rejected'",
        "DELETE FROM review_mark",
        "UPDATE review_read SET phase = 'unaided', locked_at = NULL",
        "UPDATE review_read SET locked_at = now()",
        "UPDATE review_read SET run_id = NULL",
        "UPDATE review_read SET version = 0",
        "DELETE FROM review_read",
        "INSERT INTO review_call (id, at, read_version, stage, value, reason, read_id) "
        "SELECT gen_random_uuid(), now(), 99, 'unaided', 'macro', '', id FROM review_read",
    ],
)
def test_the_database_refuses_to_rewrite_a_locked_read(ward: Ward, statement: str) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.post("marks", outline=SQUARE)
    ann.finish("macro")
    words = "append-only|cannot be unlocked|stays as it was|only grows|is locked"
    with pytest.raises(DatabaseError, match=words), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert ann.state()["phase"] == "final"


def test_the_database_refuses_to_empty_the_record(ward: Ward) -> None:
    tables = ["review_call", "review_mark", "review_markremoval", "review_decision", "review_signature", "review_read"]
    for table in tables:
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuse_truncate")  # off in tests
            cursor.execute(f"TRUNCATE {table} CASCADE")
