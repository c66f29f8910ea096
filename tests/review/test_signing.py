"""Signing: what was shown is what is signed, by whom, when and what for; refusals are events; amendments keep the old version."""

import json
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from audit_trail.models import Event
from review.enums import AssignmentRole
from review.models import Signature
from review.signing import signature_problems
from slides.enums import SlideState
from tests import factories
from tests.review.conftest import ReadClient, Ward, signed_in


def sign(ann: ReadClient, case_id: Any, sha256: str, **changes: Any) -> Any:
    body = {"meaning": "first_read", "password": factories.PASSWORD, "manifest_sha256": sha256} | changes
    return ann.http.post(
        f"/api/cases/{case_id}/sign/", body, content_type="application/json", headers={"Idempotency-Key": str(uuid4())}
    )


def manifest(ann: ReadClient, case_id: Any) -> dict[str, Any]:
    answer = ann.http.get(f"/api/cases/{case_id}/manifest/")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_a_case_is_signed_with_what_was_shown(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro", unaided="negative")
    shown = manifest(ann, ward.case.pk)
    slide = shown["manifest"]["slides"][0]
    assert slide["sha256"] == ward.slide.sha256
    assert slide["read"]["ai"]["weights_sha256"] == ward.model.sha256
    assert [call["value"] for call in slide["read"]["calls"]] == ["negative", "macro"]
    assert shown["manifest"]["node_table"]["suggestion"] == "pN1"
    assert "1 to 3 positive nodes" in shown["manifest"]["node_table"]["rule"]
    answer = sign(ann, ward.case.pk, shown["manifest_sha256"], utc_offset_minutes=120)
    assert answer.status_code == 200, answer.content
    signature = Signature.objects.get()
    assert signature.printed_name == "Dr Ann"
    assert signature.local_time.endswith("+02:00")
    assert json.loads(signature.manifest) == shown["manifest"]
    assert signature_problems(signature) == []
    assert ann.state()["phase"] == "signed"
    assert Event.objects.filter(kind="case_signed").count() == 1
    assert not Event.objects.filter(kind="signing_refused").exists()


def test_a_wrong_password_signs_nothing_and_is_an_event(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    answer = sign(ann, ward.case.pk, manifest(ann, ward.case.pk)["manifest_sha256"], password="not this one at all")
    assert answer.status_code == 400
    assert answer.json()["error"] == "wrong_password"
    assert not Signature.objects.exists()
    assert ann.state()["phase"] == "final"
    refused = Event.objects.get(kind="signing_refused")
    assert refused.outcome == "denied"
    assert "not this one" not in refused.body


def test_a_record_that_changed_since_it_was_shown_is_refused_with_the_differences(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    shown = manifest(ann, ward.case.pk)
    ann.call("micro")
    answer = sign(ann, ward.case.pk, shown["manifest_sha256"])
    assert answer.status_code == 409
    assert answer.json()["error"] == "record_changed"
    places = {item["where"]: item["now"] for item in answer.json()["differences"]}
    assert places["slides[0].read.calls[2].value"] == "micro"
    assert places["node_table.suggestion"] == "pN1mi"
    assert not Signature.objects.exists()
    assert Event.objects.filter(kind="signing_refused").count() == 1
    assert sign(ann, ward.case.pk, manifest(ann, ward.case.pk)["manifest_sha256"]).status_code == 200


def test_a_manifest_that_was_never_shown_is_refused(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    assert sign(ann, ward.case.pk, "0" * 64).status_code == 409


def test_looking_on_does_not_change_what_is_signed(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    shown = manifest(ann, ward.case.pk)["manifest_sha256"]
    ann.http.post(f"{ann.base}progress/", {"viewed_fraction": 1, "active_seconds": 9}, content_type="application/json")
    assert sign(ann, ward.case.pk, shown).status_code == 200


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("printed_name", "Dr Ben"),
        ("meaning", "adjudication"),
        ("local_time", "2020-01-01T00:00:00+00:00"),
        ("manifest_sha256", "0" * 64),
        ("seal", "00" * 64),
    ],
)
def test_an_altered_signature_does_not_verify(ward: Ward, column: str, value: str) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    assert ann.sign().status_code == 200
    signature = Signature.objects.get()
    setattr(signature, column, value)
    assert signature_problems(signature)


def test_an_altered_record_does_not_verify_and_the_report_says_so(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    ann.sign()
    assert b"hash and seal fit" in ann.http.get(f"/cases/{ward.case.pk}/report/").content
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Signature.objects.update(manifest="{}")
    with connection.cursor() as cursor:  # an owner of the tables who switches the protection off
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE review_signature DISABLE TRIGGER review_signature_refuse_change")
        cursor.execute("UPDATE review_signature SET manifest = replace(manifest, 'macro', 'micro')")
    page = ann.http.get(f"/cases/{ward.case.pk}/report/").content
    assert b"hash and seal fit" not in page
    assert b"altered" in page


def test_the_report_prints_name_times_meaning_hash_and_research_use(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    ann.sign()
    page = ann.http.get(f"/cases/{ward.case.pk}/report/").content.decode()
    signature = Signature.objects.get()
    for words in ("Dr Ann", "first read", signature.manifest_sha256, signature.seal, signature.local_time):
        assert words in page
    assert f"{signature.signed_at:%Y-%m-%d %H:%M:%S} UTC" in page
    assert page.count("For research use only. Not for use in diagnostic procedures.") >= 2


def test_a_case_is_not_signed_while_something_is_missing(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    url = f"/api/cases/{ward.case.pk}/manifest/"

    def reason() -> str:
        answer = ann.http.get(url)
        assert answer.status_code == 409
        return str(answer.json()["message"])

    assert "No final call yet" in reason()
    ann.call()
    ann.lock()
    ann.ai()
    ann.call("macro")
    assert "not decided yet" in reason()
    for lesion in ann.ai()["lesions"][:2]:
        ann.accept(lesion["id"])
    ann.call("macro")
    more = factories.make_slide(ward.case, state=SlideState.PREPARING)
    assert "Not ready yet" in reason()
    more.state = SlideState.READY
    more.save()
    assert "Not read yet" in reason()


def test_the_meaning_is_that_of_the_signers_role(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    assert ann.sign(meaning="adjudication").status_code == 400
    ben = ReadClient(ward.ben, ward.slide)
    ben.finish()
    assert ben.sign(meaning="second_read").status_code == 200


def test_nothing_is_added_to_a_signed_read_until_an_amendment_opens_it(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    ann.sign()
    for act, body in (("calls", {"call": "negative"}), ("undo", {})):
        assert ann.post(act, **body).status_code == 409
    assert signed_in(ward.ben).post(f"/cases/{ward.case.pk}/amend/", {"reason": "mine"}).status_code == 404
    url = f"/api/cases/{ward.case.pk}/amend/"
    assert ann.http.post(url, {"reason": " "}, content_type="application/json").status_code == 400
    answer = ann.http.post(url, {"reason": "second focus found"}, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert ann.http.post(url, {"reason": "again"}, content_type="application/json").status_code == 409
    ann.call("micro")
    assert ann.sign(meaning="first_read").status_code == 400
    assert ann.sign(meaning="amendment").status_code == 200
    first, second = Signature.objects.order_by("version")
    assert (first.version, second.version) == (1, 2)
    assert json.loads(second.manifest)["amends"]["manifest_sha256"] == first.manifest_sha256
    page = ann.http.get(f"/cases/{ward.case.pk}/report/").content.decode()
    assert "second focus found" in page
    assert first.manifest_sha256 in page
    assert Event.objects.filter(kind="case_amended").count() == 1


def test_a_lost_answer_is_asked_for_again_without_a_second_signature(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    shown = manifest(ann, ward.case.pk)["manifest_sha256"]
    first, again = sign(ann, ward.case.pk, shown), sign(ann, ward.case.pk, shown)
    assert first.json() == again.json()
    assert Signature.objects.count() == 1


def test_the_page_signs_without_script(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    url = f"/cases/{ward.case.pk}/sign/"
    digest = ann.http.get(url).context["digest"]
    form = {"meaning": "first_read", "manifest_sha256": digest, "password": "wrong wrong wrong"}
    assert ann.http.post(url, form).status_code == 400
    answer = ann.http.post(url, form | {"password": factories.PASSWORD})
    assert answer.status_code == 302
    assert Signature.objects.count() == 1


def test_readers_do_not_see_each_others_signatures_before_their_own_final_call(ward: Ward) -> None:
    ben = ReadClient(ward.ben, ward.slide)
    ben.finish("macro")
    ben.sign(meaning="second_read")
    page = signed_in(ward.ann).get(f"/cases/{ward.case.pk}/report/").content
    assert b"Dr Ben" not in page
    assert b"Nothing to print yet" in page
    assert b"Dr Ben" in signed_in(ward.quinn).get(f"/cases/{ward.case.pk}/report/").content


def test_the_signing_key_is_for_its_owner_alone(ward: Ward, home: Any) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish()
    ann.sign()
    assert (home / "keys" / "signing.ed25519").stat().st_mode & 0o777 == 0o600


def test_assigning_needs_the_right_roles(ward: Ward) -> None:
    case = factories.make_case("S26-0009")
    operator = signed_in(ward.otto)
    url = f"/cases/{case.pk}/assign/"
    assert signed_in(ward.ann).post(url, {"reader": ward.eve.pk, "role": "first"}).status_code == 404
    operator.post(url, {"reader": ward.cora.pk, "role": "first"})
    assert not case.assignments.exists()
    operator.post(url, {"reader": ward.eve.pk, "role": AssignmentRole.FIRST})
    operator.post(url, {"reader": ward.eve.pk, "role": AssignmentRole.SECOND})
    assert case.assignments.count() == 1
    assert case.access.get().user == ward.eve
    assert Event.objects.filter(kind="case_assigned", case_id=case.pk).count() == 1
