"""Two at once: one wins, the other is told; the same request twice happens once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from audit_trail.models import Event
from review.models import Call, Decision, Read, Signature
from tests import factories
from tests.review.conftest import ReadClient, Ward, make_ward, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ward(transactional_db: None) -> Ward:
    return make_ward()


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """The answers of all acts, begun together in a thread each."""
    gate = threading.Barrier(len(acts))
    answers: list[Any] = [None] * len(acts)

    def run(index: int, act: Callable[[], Any]) -> None:
        try:
            gate.wait()
            answers[index] = act()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index, act)) for index, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_calls_on_the_same_version_have_one_winner_and_one_who_is_told(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    for round_ in range(10):
        one, two = (ReadClient(ward.ann, ward.slide) for _ in range(2))
        answers = at_once(
            lambda one=one, round_=round_: one.post("calls", version=round_, call="micro"),
            lambda two=two, round_=round_: two.post("calls", version=round_, call="macro"),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        loser = next(answer for answer in answers if answer.status_code == 409)
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert loser.json()["current"]["unaided_call"] == winner.json()["unaided_call"]
    assert ann.state()["version"] == Call.objects.count() == 10
    assert Event.objects.filter(kind="call_recorded").count() == 10


def test_the_same_key_five_times_at_once_is_one_effect_and_one_answer(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call()
    ann.lock()
    lesion = ann.ai()["lesions"][0]["id"]
    clients = [ReadClient(ward.ann, ward.slide) for _ in range(5)]
    answers = at_once(
        *(
            lambda client=client: client.post("decisions", key="once", version=2, lesion=lesion, verdict="accepted")
            for client in clients
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert Decision.objects.count() == 1


def test_one_read_is_begun_however_often_the_page_is_opened(ward: Ward) -> None:
    clients = [signed_in(ward.ann) for _ in range(4)]
    answers = at_once(*(lambda client=client: client.post(f"/slides/{ward.slide.pk}/read/") for client in clients))
    assert len({answer["Location"] for answer in answers}) == 1
    assert Read.objects.count() == 1
    assert Event.objects.filter(kind="read_started").count() == 1


def test_a_call_that_races_a_lock_is_before_it_or_not_at_all(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    other = ReadClient(ward.ann, ward.slide)
    answers = at_once(
        lambda: ann.post("lock", version=1, confirm=True), lambda: other.post("calls", version=1, call="macro")
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    read = Read.objects.get()
    assert Call.objects.count() == (2 if read.phase == "unaided" else 1)


def test_a_decision_that_races_a_signature_is_in_it_or_refused(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    version = ann.state()["version"]
    shown = ann.http.get(f"/api/cases/{ward.case.pk}/manifest/").json()["manifest_sha256"]
    other = ReadClient(ward.ann, ward.slide)
    body = {"meaning": "first_read", "password": factories.PASSWORD, "manifest_sha256": shown}
    signing, call = at_once(
        lambda: ann.http.post(f"/api/cases/{ward.case.pk}/sign/", body, content_type="application/json"),
        lambda: other.post("calls", version=version, call="micro"),
    )
    assert {signing.status_code, call.status_code} == {200, 409}
    assert Signature.objects.count() == (1 if signing.status_code == 200 else 0)
    assert Call.objects.filter(value="micro").count() == (1 if call.status_code == 200 else 0)
