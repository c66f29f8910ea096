import csv
import hashlib
import io

import pytest
from django.db import transaction

from accounts.models import User
from audit_trail.enums import EventKind
from audit_trail.models import Event
from audit_trail.pages import PER_PAGE
from audit_trail.recording import record

pytestmark = pytest.mark.django_db


@pytest.fixture
def auditor(client) -> User:
    user = User.objects.create_user("aude", printed_name="Aude Auditor", roles=["auditor"])
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return user


def add_events(count: int, **details: object) -> None:
    with transaction.atomic():
        for n in range(count):
            record(EventKind.SLIDE_OPENED, actor=None, details={"n": n, **details})


def test_reading_the_trail_is_an_event(client, auditor):
    add_events(1)
    assert "slide opened" in client.get("/trail/").content.decode()
    assert Event.objects.filter(kind=EventKind.TRAIL_VIEWED, actor_id=auditor.pk).count() == 1


@pytest.mark.parametrize("role", ["reader", "operator", "adjudicator", "administrator"])
def test_the_trail_is_for_auditors(client, role):
    user = User.objects.create_user("u", printed_name="U", roles=[role])
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/trail/").status_code == 404
    assert client.get("/trail/export/").status_code == 404


def test_pages_keep_the_filter(client, auditor):
    add_events(PER_PAGE + 1)
    page = client.get("/trail/?kind=slide_opened").content.decode()
    assert "Page 1 of 2" in page
    assert "?kind=slide_opened&amp;page=2" in page
    assert "Page 2 of 2" in client.get("/trail/?kind=slide_opened&page=2").content.decode()


def test_a_filter_that_matches_nothing_says_so(client, auditor):
    assert "No event matches" in client.get("/trail/?person=nobody").content.decode()


def test_the_export_carries_its_hash_and_runs_nothing_in_a_spreadsheet(client, auditor):
    with transaction.atomic():
        record(EventKind.CASE_CREATED, actor=User(printed_name='=HYPERLINK("x")', username="x"), details={})
    answer = client.get("/trail/export/?kind=case_created")
    assert answer["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()
    row = next(csv.DictReader(io.StringIO(answer.content.decode())))
    assert row["actor_name"] == '\'=HYPERLINK("x")'
    assert Event.objects.get(kind=EventKind.TRAIL_EXPORTED).details["sha256"] == answer["X-Content-SHA256"]
