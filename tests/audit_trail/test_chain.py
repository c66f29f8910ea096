"""The trail's chain, its protection, and what verification finds."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from audit_trail.canonical import canonical_json
from audit_trail.checkpoints import checkpoint_file, checkpoint_if_due, make_checkpoint
from audit_trail.enums import EventKind
from audit_trail.models import Checkpoint, Event
from audit_trail.recording import record
from audit_trail.verification import Verdict, verify_trail

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(settings, tmp_path: Path) -> Path:
    settings.METADET_HOME = tmp_path
    return tmp_path


@pytest.fixture
def person() -> User:
    return User.objects.create(username="li", printed_name="Dr. Li", roles=["reader"])


def add_events(person: User, count: int) -> list[Event]:
    return [record(EventKind.CALL_RECORDED, actor=person, details={"n": n, "text": "é\n=1"}) for n in range(count)]


def forge(sql: str, parameters: list[object]) -> None:
    """Changes rows as someone who owns the tables can: with the triggers off."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_trail_event DISABLE TRIGGER ALL")
        cursor.execute(sql, parameters)
        cursor.execute("ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_chain")
        cursor.execute("ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_refuse_change")
        cursor.execute("ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_refuse_truncate")


def test_events_follow_each_other_without_gaps(person):
    events = add_events(person, 5)
    assert [e.seq for e in events] == list(range(events[0].seq, events[0].seq + 5))
    assert all(b.prev_hash == a.hash and b.at > a.at for a, b in pairwise(events))
    assert verify_trail().verdict is Verdict.WHOLE


def test_an_act_that_fails_leaves_no_event(person):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record(EventKind.CALL_RECORDED, actor=person)
        _ = 1 / 0
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_trail_event SET actor_name = 'other'",
        "DELETE FROM audit_trail_event",
        "UPDATE audit_trail_checkpoint SET hash = 'x'",
        "DELETE FROM audit_trail_checkpoint",
    ],
)
def test_the_database_refuses_changes_even_from_the_owner(person, statement):
    add_events(person, 1)
    make_checkpoint()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_replica_mode_does_not_switch_the_protection_off(person):
    add_events(person, 1)
    with pytest.raises(DatabaseError, match=r"append-only|permission denied"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute("DELETE FROM audit_trail_event")


@pytest.mark.parametrize("statement", ["UPDATE audit_trail_event SET actor_name = 'x'", "DELETE FROM audit_trail_event",
    "TRUNCATE audit_trail_event", "ALTER TABLE audit_trail_event DISABLE TRIGGER ALL"])  # fmt: skip
def test_the_running_product_has_no_right_to_change_the_trail(person, statement):
    add_events(person, 1)
    with pytest.raises(DatabaseError, match=r"permission denied|must be owner"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE metadet_app")
            cursor.execute(statement)


def test_the_running_product_can_add_to_the_trail(person, as_role):
    with as_role("metadet_app"):
        add_events(person, 2)
    assert verify_trail().verdict is Verdict.WHOLE


COLUMNS = [
    "kind",
    "outcome",
    "actor_name",
    "actor_roles",
    "subject_type",
    "address",
    "request_id",
    "body",
    "hash",
    "prev_hash",
]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_column_is_found(person, column):
    events = add_events(person, 4)
    forge(f"UPDATE audit_trail_event SET {column} = %s WHERE seq = %s", ["forged", events[1].seq])
    assert verify_trail().verdict is Verdict.TAMPERED


def test_changed_details_and_time_and_person_are_found(person):
    events = add_events(person, 4)
    for sql, value in [
        ("UPDATE audit_trail_event SET details = %s WHERE seq = %s", json.dumps({"n": 99})),
        ("UPDATE audit_trail_event SET at = at + %s::interval WHERE seq = %s", "1 second"),
        ("UPDATE audit_trail_event SET actor_id = %s WHERE seq = %s", "00000000-0000-0000-0000-000000000001"),
    ]:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            forge(sql, [value, events[2].seq])
            assert verify_trail().verdict is Verdict.TAMPERED
            _ = 1 / 0  # put the rows back
    assert verify_trail().verdict is Verdict.WHOLE


def test_a_removed_event_is_found(person):
    events = add_events(person, 5)
    forge("DELETE FROM audit_trail_event WHERE seq = %s", [events[2].seq])
    assert verify_trail().verdict is Verdict.TAMPERED


def test_random_forgeries_are_all_found(person):
    add_events(person, 12)
    first = Event.objects.order_by("seq").first().seq
    seed = 20260101
    rng = random.Random(seed)
    for _ in range(60):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            column, seq = rng.choice(COLUMNS), first + rng.randrange(12)
            forge(f"UPDATE audit_trail_event SET {column} = %s || substr({column}, 2) WHERE seq = %s", ["~", seq])
            assert verify_trail().verdict is Verdict.TAMPERED, (seed, column, seq)
            _ = 1 / 0


def test_a_cut_off_end_is_found_by_the_checkpoint_alone(person):
    events = add_events(person, 6)
    forge("DELETE FROM audit_trail_event WHERE seq > %s", [events[3].seq])
    assert verify_trail().verdict is Verdict.WHOLE  # the chain alone does not notice

    add_events(person, 2)
    make_checkpoint()
    kept = checkpoint_file().read_text()
    head = Event.objects.order_by("-seq").first().seq
    forge("DELETE FROM audit_trail_event WHERE seq >= %s", [head])
    assert verify_trail().verdict is Verdict.SHORTER

    with connection.cursor() as cursor:  # the database's own checkpoints cut off too: only the copy elsewhere knows
        cursor.execute("ALTER TABLE audit_trail_checkpoint DISABLE TRIGGER ALL")
        cursor.execute("DELETE FROM audit_trail_checkpoint")
        cursor.execute("ALTER TABLE audit_trail_checkpoint ENABLE ALWAYS TRIGGER audit_trail_checkpoint_refuse_change")
        cursor.execute(
            "ALTER TABLE audit_trail_checkpoint ENABLE ALWAYS TRIGGER audit_trail_checkpoint_refuse_truncate"
        )
    assert verify_trail().verdict is Verdict.WHOLE
    elsewhere = checkpoint_file().with_name("elsewhere.jsonl")
    elsewhere.write_text(kept)
    assert verify_trail(against=elsewhere).verdict is Verdict.SHORTER


def test_a_rewritten_chain_is_found_by_a_checkpoint(person):
    events = add_events(person, 3)
    make_checkpoint()
    body = canonical_json({**json.loads(events[2].body), "details": {"n": 77}})
    forge("UPDATE audit_trail_event SET body = %s, details = %s WHERE seq = %s", [body, '{"n": 77}', events[2].seq])
    forge(
        "UPDATE audit_trail_event SET hash = encode(sha256(convert_to(prev_hash || E'\\n' || seq::text || E'\\n' || "
        "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || E'\\n' || body, 'UTF8')), 'hex') WHERE seq = %s",
        [events[2].seq],
    )
    result = verify_trail()
    assert result.verdict is Verdict.TAMPERED
    assert any("checkpoint" in line for line in result.tampered)


def test_a_switched_off_protection_is_found(person):
    add_events(person, 1)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_trail_event DISABLE TRIGGER audit_trail_refuse_change")
    assert verify_trail().verdict is Verdict.TAMPERED


def test_an_unreadable_checkpoint_file_means_cannot_tell(person, tmp_path):
    add_events(person, 1)
    assert verify_trail(against=tmp_path / "none.jsonl").verdict is Verdict.CANNOT_TELL
    (tmp_path / "bad.jsonl").write_text("not a checkpoint\n")
    assert verify_trail(against=tmp_path / "bad.jsonl").verdict is Verdict.CANNOT_TELL


def test_a_forged_checkpoint_line_is_found(person, tmp_path):
    add_events(person, 2)
    make_checkpoint()
    line = json.loads(checkpoint_file().read_text())
    line["body"] = line["body"].replace('"seq":', '"seq": ')
    (tmp_path / "forged.jsonl").write_text(json.dumps(line) + "\n")
    assert verify_trail(against=tmp_path / "forged.jsonl").verdict is Verdict.TAMPERED


def test_checkpoints_are_made_when_due_and_never_twice(person):
    assert checkpoint_if_due() is None
    add_events(person, 2)
    assert checkpoint_if_due() is not None
    assert checkpoint_if_due() is None
    add_events(person, 1)
    assert checkpoint_if_due() is None  # ten minutes have not passed
    assert Checkpoint.objects.count() == 1


@pytest.mark.parametrize(("forged", "status"), [(False, 0), (True, 2)])
def test_the_command_tells_by_its_exit_status(person, capsys, forged, status):
    events = add_events(person, 3)
    if forged:
        forge("UPDATE audit_trail_event SET actor_name = 'x' WHERE seq = %s", [events[1].seq])
    with pytest.raises(SystemExit) as ended:
        call_command("verify_trail")
    assert ended.value.code == status
    assert ("TAMPERED" in capsys.readouterr().out) is forged


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_the_canonical_form_is_stable(value):
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


def test_the_canonical_form_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"score": float("nan")})
