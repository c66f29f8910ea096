"""The way in: a one-time link, the first page of a reader, and nobody kept out by how the pages are made."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from accounts.enums import Role
from accounts.models import User
from accounts.sign_in import make_one_time_link

pytestmark = pytest.mark.browser


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"


def test_a_reader_logs_in_by_a_link_that_works_once(site: str, page: Page) -> None:
    reader = User.objects.create(username="ada", printed_name="Dr Ada Reader", roles=[Role.READER])
    link = f"{site}/accounts/one-time/{make_one_time_link(user=reader)}/"

    page.goto(link)
    assert_accessible(page)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{site}/worklist/")
    expect(page.locator("body")).to_contain_text("Dr Ada Reader")
    assert_accessible(page)

    page.context.clear_cookies()
    page.goto(link)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto(f"{site}/worklist/")
    expect(page).to_have_url(f"{site}/accounts/login/?next=/worklist/")
    assert_accessible(page)
