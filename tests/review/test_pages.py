"""Worklist and case page: who finds what there, and what an empty one says."""

import pytest
from django.test import Client

from accounts.enums import Role
from analysis.models import Lesion
from review.enums import AssignmentRole
from slides.enums import SlideState
from tests import factories
from tests.review.conftest import ReadClient, Ward, signed_in


def rows(client: Client, query: str = "") -> dict[str, str]:
    """Accession number -> state, as the worklist shows them, in order."""
    page = client.get(f"/worklist/{query}")
    assert page.status_code == 200
    return {row.case.accession: row.state for row in page.context["page"]}


def test_a_case_goes_through_its_states(ward: Ward) -> None:
    client = signed_in(ward.ann)
    assert rows(client) == {"S26-0001": "to_read"}
    ann = ReadClient(ward.ann, ward.slide)
    assert rows(client) == {"S26-0001": "reading"}
    ann.finish()
    assert rows(client) == {"S26-0001": "read"}
    ann.sign()
    assert rows(client) == {"S26-0001": "signed"}
    ann.http.post(f"/cases/{ward.case.pk}/amend/", {"reason": "recount"})
    assert rows(client) == {"S26-0001": "amended"}
    assert rows(signed_in(ward.ben)) == {"S26-0001": "to_read"}


def test_filters_and_search(ward: Ward) -> None:
    urgent = factories.make_case("S26-0100", urgent=True)
    factories.make_slide(urgent)
    broken = factories.make_case("S26-0200")
    factories.make_slide(broken, state=SlideState.QUARANTINED)
    for case in (urgent, broken):
        factories.assign(case, ward.ann)
    client = signed_in(ward.ann)
    assert list(rows(client)) == ["S26-0100", "S26-0001", "S26-0200"]
    assert rows(client)["S26-0200"] == "failed"
    assert list(rows(client, "?filter=urgent")) == ["S26-0100"]
    assert list(rows(client, "?filter=failed")) == ["S26-0200"]
    assert list(rows(client, "?filter=unread")) == ["S26-0100", "S26-0001"]
    assert list(rows(client, "?q=0200")) == ["S26-0200"]
    assert b"No case matches" in client.get("/worklist/?q=nothing").content


def test_the_order_does_not_depend_on_the_ai(ward: Ward) -> None:
    for number in (2, 3):
        case = factories.make_case(f"S26-000{number}")
        factories.make_run(factories.make_slide(case), scores=(0.1,))
        factories.assign(case, ward.ann)
    before = list(rows(signed_in(ward.ann)))
    Lesion.objects.filter(run__slide__case__accession="S26-0003").update(score=0.99)
    assert list(rows(signed_in(ward.ann))) == before


def test_operators_find_every_case_but_no_calls(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    ann.finish("macro")
    other = factories.make_case("S26-0300")
    factories.make_slide(other)
    client = signed_in(ward.otto)
    assert rows(client) == {"S26-0001": "assigned", "S26-0300": "unassigned"}
    assert list(rows(client, "?filter=unread")) == ["S26-0300"]
    page = client.get(f"/cases/{ward.case.pk}/").content
    assert b"Dr Ann" in page
    assert b"macrometastasis" not in page


def test_an_adjudicator_waits_for_the_readers_then_finds_where_they_differ(ward: Ward) -> None:
    factories.assign(ward.case, ward.cora, AssignmentRole.ADJUDICATOR)
    client = signed_in(ward.cora)
    assert rows(client) == {"S26-0001": "waiting"}
    for user, call in ((ward.ann, "negative"), (ward.ben, "micro")):
        assert list(rows(client, "?filter=discordant")) == []
        reader = ReadClient(user, ward.slide)
        reader.call(call)
        reader.lock()
    assert rows(client, "?filter=discordant") == {"S26-0001": "to_read"}


def test_the_next_case_is_one_with_something_to_do(ward: Ward) -> None:
    other = factories.make_case("S26-0400")
    factories.make_slide(other)
    factories.assign(other, ward.ann)
    client = signed_in(ward.ann)
    assert client.get(f"/worklist/next/?after={ward.case.pk}")["Location"] == f"/cases/{other.pk}/"
    assert client.get(f"/worklist/next/?after={other.pk}")["Location"] == f"/cases/{ward.case.pk}/"
    assert client.get("/worklist/next/?after=nonsense").status_code == 302


def test_the_viewer_page_starts_from_the_read_and_nothing_else(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    boot = ann.http.get(f"/reads/{ann.read_id}/").context["boot"]
    assert boot["mode"] == "read"
    assert boot["read_id"] == ann.read_id
    assert "audit" not in boot


def test_the_sign_button_says_why_it_is_off(ward: Ward) -> None:
    ann = ReadClient(ward.ann, ward.slide)
    page = ann.http.get(f"/cases/{ward.case.pk}/").content.decode()
    assert "No final call yet: LN1 1." in page
    ann.finish()
    assert f"/cases/{ward.case.pk}/sign/" in ann.http.get(f"/cases/{ward.case.pk}/").content.decode()


@pytest.mark.parametrize(
    ("role", "words"),
    [(Role.READER, b"No case is waiting for you"), (Role.OPERATOR, b"There is no case yet")],
)
def test_an_empty_worklist_says_what_comes_next(db: None, role: Role, words: bytes) -> None:
    assert words in signed_in(factories.make_user("new", role)).get("/worklist/").content


def test_people_without_a_reading_or_operating_role_have_no_worklist(ward: Ward) -> None:
    assert signed_in(ward.quinn).get("/worklist/").status_code == 404
    assert Client().get("/worklist/").status_code == 302
