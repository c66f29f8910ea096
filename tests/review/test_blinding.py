"""No AI byte before the lock, over every route there is.

Values that stand nowhere else are put into the AI result and into the other reader's read. Every address of the URL tree
is asked for by people who must not see them; then the lock shows that the values were there to be found.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

import review
from accounts.enums import Role
from accounts.models import User
from analysis.models import Run
from audit_trail.enums import EventKind
from audit_trail.models import Event
from audit_trail.recording import record
from review.enums import AssignmentRole
from review.models import Read
from tests import factories
from tests.review.conftest import ReadClient, Ward, signed_in

SCORE = 0.8713371
LONGEST_MM = 3.1415271
FIELD = b"\xff\xd8 canary field bytes"
HEATMAP = b"canary heat!"
CALIBRATED = {
    "slide_probability": 0.8642135,
    "triage": "ai_positive",
    "triage_words": "canary-promise-of-the-band",
    "drift": {"z_eosin": 7.7531},
}
BEN_SAYS = "canary-ben-folded-tissue"
MODEL = "canary-model-7f3a"


@pytest.fixture
def canaries(ward: Ward) -> dict[str, bytes]:
    """What must not leak, by name. The result of the slide that ann and ben both still have to read."""
    slide = factories.make_slide(ward.case, node="LN7")
    ward.slide = slide
    ward.model.version = MODEL
    ward.model.save()
    run = factories.make_run(
        slide, scores=(SCORE,), longest_mm=LONGEST_MM, heatmap=HEATMAP, slide_score=0.9173137, **CALIBRATED
    )
    ward.run = run
    lesion = run.lesions.get()
    lesion.field_path.write_bytes(FIELD)
    with transaction.atomic():
        record(
            EventKind.RUN_FINISHED,
            actor=None,
            subject=run,
            case_id=ward.case.pk,
            slide_id=slide.pk,
            details={"heatmap_sha256": run.heatmap_sha256, "status": run.status, "triage": run.triage},
        )
    return {
        "score": str(SCORE).encode(),
        "slide score": b"0.9173137",
        "slide probability": b"0.8642135",
        "triage band": b"ai_positive",
        "triage promise": b"canary-promise-of-the-band",
        "longest diameter": str(LONGEST_MM).encode(),
        "lesion": str(lesion.pk).encode(),
        "run": str(run.pk).encode(),
        "field": FIELD,
        "heatmap": HEATMAP,
        "heatmap hash": run.heatmap_sha256.encode(),
    }


def addresses(**known: Any) -> Iterator[str]:
    """Every address of the URL tree, its arguments filled from `known` by name."""
    for route in _routes(get_resolver().url_patterns, ""):
        fill = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(known[found.group(1)]), route)
        yield "/" + fill.replace("^", "").replace("$", "").replace("\\Z", "")


def _routes(patterns: list[Any], before: str) -> Iterator[str]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route


def everything_for(user: User, ward: Ward, read_id: Any) -> dict[str, bytes]:
    """Body and headers of a GET and an empty POST of every address, by method and address."""
    lesion = ward.run.lesions.get()
    answers: dict[str, bytes] = {}
    for figure in ("figures", "slides", "discordance"):
        known = {
            **{"case_id": ward.case.pk, "slide_id": ward.slide.pk, "read_id": read_id, "lesion_id": lesion.pk},
            **{"run_id": ward.run.pk, "mark_id": uuid4(), "job_id": ward.run.job_id, "model_id": ward.model.pk},
            **{"upload_id": uuid4(), "assignment_id": uuid4(), "token": "x", "figure": figure, "kind": "label"},
            **{"store": "store", "level": 0, "col": 0, "row": 0},
        }
        for address in addresses(**known):
            if figure != "figures" and "/export/" not in address:
                continue
            for method in ("GET", "POST"):
                with transaction.atomic():
                    client = signed_in(user)
                    client.raise_request_exception = False
                    answer = client.generic(method, address, b"{}", content_type="application/json")
                    answers[f"{method} {address}"] = whole(answer)
                    transaction.set_rollback(True)  # what an empty POST may have done is not the question here
    return answers


def whole(answer: Any) -> bytes:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    if answer.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return body + b"\n" + "\n".join(f"{name}: {value}" for name, value in answer.items()).encode()


def leaks(answers: dict[str, bytes], secrets: dict[str, bytes]) -> list[str]:
    """Which secret stands in which answer. What the address itself named (a redirect, an error page) is no leak."""
    found = []
    for where, content in answers.items():
        for name, secret in secrets.items():
            if secret in content and secret.decode("latin1") not in where:
                found.append(f"{name} in {where}")
    return found


def test_the_walk_reaches_the_whole_tree(ward: Ward) -> None:
    names = {"case_id", "slide_id", "read_id", "lesion_id", "run_id", "mark_id", "job_id", "model_id"}
    names |= {"upload_id", "assignment_id", "token", "figure", "kind", "store", "level", "col", "row"}
    found = set(addresses(**dict.fromkeys(names, "X")))
    assert {"/api/reads/X/ai/heatmap/", "/agreement/export/X/", "/trail/export/", "/api/slides/", "/cases/X/"} <= found


def test_nothing_of_the_ai_reaches_people_before_the_lock_and_all_of_it_the_reader_after(
    ward: Ward, canaries: dict[str, bytes]
) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.call("negative")
    # The reader alone, and with every other role as well; operators and administrators at any time.
    before = everything_for(ward.ann, ward, ann.read_id)
    assert leaks(before, canaries | {"model": MODEL.encode()}) == []
    ward.ann.roles = [str(role) for role in Role]
    ward.ann.save()
    assert leaks(everything_for(ward.ann, ward, ann.read_id), canaries) == []
    ward.ann.roles = [str(Role.READER)]
    ward.ann.save()
    assert leaks(everything_for(ward.ben, ward, ann.read_id), canaries | {"model": MODEL.encode()}) == []
    assert leaks(everything_for(ward.eve, ward, ann.read_id), canaries | {"model": MODEL.encode()}) == []

    ann.lock()
    ann.ai()
    after = b"\n".join(everything_for(ward.ann, ward, ann.read_id).values())
    after += ann.http.get(f"{ann.base}ai/").content
    missing = [name for name, secret in canaries.items() if secret not in after and name != "heatmap hash"]
    assert missing == []
    # ben still has to read: ann's lock and decisions change nothing for him
    ann.accept(str(ward.run.lesions.get().pk))
    assert leaks(everything_for(ward.ben, ward, ann.read_id), canaries | {"model": MODEL.encode()}) == []
    assert leaks(everything_for(ward.otto, ward, ann.read_id), canaries) == []


def test_an_assigned_auditor_is_blind_before_the_read_was_even_begun(ward: Ward, canaries: dict[str, bytes]) -> None:
    ward.ben.roles = [str(Role.READER), str(Role.AUDITOR)]
    ward.ben.save()
    assert leaks(everything_for(ward.ben, ward, uuid4()), canaries) == []
    seen = b"\n".join(everything_for(ward.quinn, ward, uuid4()).values())
    seen += signed_in(ward.quinn).get(f"/api/agreement/slides/{ward.slide.pk}/ai/").content
    assert [name for name, secret in canaries.items() if secret not in seen] == []


def test_what_is_hidden_answers_byte_for_byte_like_what_is_not_there(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    lesion = ward.run.lesions.get(rank=1).pk
    for path in ("ai/", "ai/heatmap/", f"ai/lesions/{lesion}/field.jpg"):
        hidden = ann.http.get(f"{ann.base}{path}")
        absent = ann.http.get(f"/api/reads/{uuid4()}/{path}")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.content == absent.content
        assert _headers(hidden) == _headers(absent)


def test_hidden_answers_do_not_depend_on_whether_there_is_a_result(ward: Ward) -> None:
    without = ReadClient(ward.ann, factories.make_slide(ward.case))
    with_run = ReadClient(ward.ann, ward.slide)
    counts = []
    for reader in (without, with_run):
        with CaptureQueriesContext(connection) as asked:
            reader.http.get(f"{reader.base}ai/")
        counts.append([re.sub(r"'[^']*'|_x\d+", "?", query["sql"]) for query in asked.captured_queries])
    assert counts[0] == counts[1]


def test_a_second_reader_sees_the_first_only_when_both_have_a_final_call(ward: Ward) -> None:
    ann, ben = ReadClient(ward.ann, ward.slide), ReadClient(ward.ben, ward.slide)
    ben.call("cannot_assess", reason=BEN_SAYS)
    secret = {"ben": BEN_SAYS.encode()}

    def seen_by_ann() -> list[str]:
        return leaks(everything_for(ward.ann, ward_with_one_lesion(ward), ann.read_id), secret)

    ben.lock()
    ann.call("micro")
    assert seen_by_ann() == []
    ann.lock()
    assert seen_by_ann() == []
    ben.call("negative")
    assert seen_by_ann() == []
    ann.call("micro")
    assert ann.state()["other_reads"][0]["unaided_call"]["reason"] == BEN_SAYS
    assert seen_by_ann() != []


def ward_with_one_lesion(ward: Ward) -> Ward:
    ward.run = Run.objects.get(pk=ward.run.pk)
    for lesion in list(ward.run.lesions.all())[1:]:
        lesion.delete()
    return ward


def test_an_adjudicator_begins_when_all_have_locked_and_then_sees_reads_and_ai(ward: Ward) -> None:
    factories.assign(ward.case, ward.cora, AssignmentRole.ADJUDICATOR)
    client = signed_in(ward.cora)
    ann, ben = ReadClient(ward.ann, ward.slide), ReadClient(ward.ben, ward.slide)
    ann.call("negative")
    ann.lock()
    assert client.post(f"/slides/{ward.slide.pk}/read/").status_code == 409
    assert not Read.objects.filter(reader=ward.cora).exists()
    ben.call("macro")
    ben.lock()
    cora = ReadClient(ward.cora, ward.slide)
    assert {item["reader"] for item in cora.state()["other_reads"]} == {str(ward.ann), str(ward.ben)}
    assert len(cora.ai()["lesions"]) == 3
    assert cora.state()["protocol"] == "concurrent"


def test_each_showing_to_an_auditor_is_an_event(ward: Ward) -> None:
    client = signed_in(ward.quinn)
    for times in (1, 2):
        shown = client.get(f"/api/agreement/slides/{ward.slide.pk}/ai/").json()
        assert Event.objects.filter(kind="ai_viewed_by_auditor").count() == times
    assert client.get(shown["heatmap"]["url"]).status_code == 200
    assert client.get(shown["lesions"][0]["field_url"]).status_code == 200
    for other in (ward.otto, ward.ann, ward.cora):
        assert signed_in(other).get(f"/api/agreement/slides/{ward.slide.pk}/ai/").status_code == 403


def test_only_visibility_reads_results() -> None:
    """The door is one: no other module of review/ asks for runs or lesions by slide."""
    folder = Path(review.__file__).parent
    asking = re.compile(r"live_run|Run\.objects|Lesion\.objects|\.runs\b")
    offenders = {
        path.name for path in folder.rglob("*.py") if "migrations" not in path.parts and asking.search(path.read_text())
    }
    assert offenders <= {"visibility.py", "reading.py", "load_demo.py"}  # reading: the lesion of a run already revealed


def _headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.items() if name != "X-Request-Id"}
