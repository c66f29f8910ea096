import pytest

from audit_trail.enums import EventKind
from audit_trail.errors import NotInTransaction
from audit_trail.recording import record


@pytest.mark.django_db(transaction=True)
def test_recording_outside_of_a_transaction_is_refused():
    with pytest.raises(NotInTransaction):
        record(EventKind.CALL_RECORDED, actor=None)
