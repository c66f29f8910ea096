"""Which events a person may look up. Rooms above add what must stay hidden from whom, such as from a blinded reader."""

from collections.abc import Callable

from django.db.models import QuerySet

from accounts.models import User
from audit_trail.models import Event

# (person, events) -> events without what the person may not see yet; filled by the apps' AppConfig.ready().
HIDING: list[Callable[[User, QuerySet[Event]], QuerySet[Event]]] = []


def without_hidden(user: User, events: QuerySet[Event]) -> QuerySet[Event]:
    for hide in HIDING:
        events = hide(user, events)
    return events
