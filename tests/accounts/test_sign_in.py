from datetime import timedelta

import pytest
from django.urls import reverse

from accounts.errors import LinkNotValid
from accounts.models import OneTimeLink, User
from accounts.sign_in import make_one_time_link, use_one_time_link
from audit_trail.enums import EventKind
from audit_trail.models import Event

pytestmark = pytest.mark.django_db


@pytest.fixture
def person() -> User:
    return User.objects.create_user("li", password="a long password", printed_name="Dr. Li", roles=["reader"])


def test_a_link_logs_in_once(client, person):
    address = reverse("one-time-log-in", args=[make_one_time_link(user=person)])
    assert client.get(address).status_code == 200  # looking does not spend it
    assert client.post(address).status_code == 302
    assert client.session["_auth_user_id"] == str(person.pk)
    client.logout()
    again = client.post(address)
    assert again.status_code == 410
    assert "used already" in again.content.decode()


def test_a_link_runs_out(person):
    token = make_one_time_link(user=person, lifetime=timedelta(seconds=-1))
    with pytest.raises(LinkNotValid):
        use_one_time_link(token=token)


def test_a_link_of_a_disabled_account_is_refused(person):
    token = make_one_time_link(user=person)
    User.objects.filter(pk=person.pk).update(is_active=False)
    with pytest.raises(LinkNotValid):
        use_one_time_link(token=token)


def test_the_token_itself_is_not_kept(person):
    token = make_one_time_link(user=person)
    assert token not in str(list(OneTimeLink.objects.values()))


def test_log_in_refusal_and_log_out_are_events(client, person):
    client.post(reverse("login"), {"username": "li", "password": "wrong"})
    client.post(reverse("login"), {"username": "li", "password": "a long password"})
    client.post(reverse("logout"))
    kinds = list(Event.objects.values_list("kind", flat=True))
    assert kinds == [EventKind.LOG_IN_REFUSED, EventKind.LOGGED_IN, EventKind.LOGGED_OUT]


def test_wrong_passwords_lock_the_account_out(client, person, settings):
    for _ in range(settings.AXES_FAILURE_LIMIT):
        client.post(reverse("login"), {"username": "li", "password": "wrong"})
    answer = client.post(reverse("login"), {"username": "li", "password": "a long password"})
    assert answer.status_code == 429
    assert "_auth_user_id" not in client.session


def test_every_page_needs_a_log_in(client):
    for name in ("home", "worklist", "slides", "agreement", "trail", "models"):
        answer = client.get(reverse(name))
        assert answer.status_code == 302, name
        assert answer["Location"].startswith(reverse("login")), name
