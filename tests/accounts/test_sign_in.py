from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
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
    assert client.post(reverse("logout"))["Clear-Site-Data"] == '"cache", "storage"'
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


def test_a_new_person_comes_in_by_link_and_sets_a_password(client, capsys):
    call_command("add_user", "ada", "--printed-name", "Dr Ada Li", "--role", "reader")
    link = capsys.readouterr().out.strip().removeprefix("http://127.0.0.1:8000")
    assert Event.objects.get(kind=EventKind.ACCOUNT_CREATED).details == {"user_name": "ada", "roles": ["reader"]}
    client.post(link)
    page = client.get(reverse("password"))
    assert "Set your password" in page.content.decode()
    chosen = {"new_password1": "correct horse 12 battery", "new_password2": "correct horse 12 battery"}
    assert client.post(reverse("password"), chosen).status_code == 302
    assert client.get(reverse("password")).status_code == 200  # still logged in
    assert User.objects.get(username="ada").check_password("correct horse 12 battery")
    assert Event.objects.filter(kind=EventKind.ACCOUNT_CHANGED).count() == 1


def test_a_weak_password_is_refused_in_words(client, person):
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    weak = {"old_password": "a long password", "new_password1": "short", "new_password2": "short"}
    answer = client.post(reverse("password"), weak)
    assert "too short" in answer.content.decode()
    assert not Event.objects.filter(kind=EventKind.ACCOUNT_CHANGED).exists()


@pytest.mark.parametrize(
    ("name", "words"), [("LI", "already"), (" ", "user name")], ids=["taken in other letters", "empty"]
)
def test_an_account_is_never_reused_or_empty(person, name, words):
    with pytest.raises(CommandError, match=words):
        call_command("add_user", name, "--printed-name", "Dr X", "--role", "reader")
