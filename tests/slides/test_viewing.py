"""Opening a slide: who may, and one event per opening."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit_trail.models import Event
from slides.models import Slide, Viewing
from tests.slides.conftest import give_access, logged_in

pytestmark = pytest.mark.django_db


def open_(client: Client, slide: Slide) -> int:
    return client.post(f"/api/slides/{slide.pk}/view/", {}, content_type="application/json").status_code


def openings() -> int:
    return Event.objects.filter(kind="slide_opened").count()


def test_renewals_are_no_new_openings(reader: User, ready_slide: Slide) -> None:
    give_access(reader, ready_slide)
    client = logged_in(reader)
    assert [open_(client, ready_slide) for _ in range(3)] == [200, 200, 200]
    assert openings() == 1
    [event] = Event.objects.filter(kind="slide_opened")
    assert (event.actor_id, event.slide_id, event.case_id) == (reader.pk, ready_slide.pk, ready_slide.case_id)


def test_coming_back_later_is_a_new_opening(reader: User, ready_slide: Slide) -> None:
    give_access(reader, ready_slide)
    client = logged_in(reader)
    open_(client, ready_slide)
    viewing = Viewing.objects.get()
    Viewing.objects.update(renewed_at=viewing.renewed_at - timedelta(minutes=5))
    open_(client, ready_slide)
    assert openings() == 2


def test_each_log_in_opens_for_itself(reader: User, operator: User, ready_slide: Slide) -> None:
    give_access(reader, ready_slide)
    for client in (logged_in(reader), logged_in(reader), logged_in(operator)):
        open_(client, ready_slide)
    assert openings() == 3


def test_who_may_not_see_it_opens_nothing(reader: User, ready_slide: Slide) -> None:
    assert open_(logged_in(reader), ready_slide) == 404
    assert open_(Client(), ready_slide) == 403
    assert openings() == 0


def test_a_slide_that_is_not_ready_is_not_opened(operator: User, received: Any) -> None:
    slide = received()
    assert open_(logged_in(operator), slide) == 400
    assert openings() == 0
