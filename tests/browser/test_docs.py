"""``/docs`` in a browser: it can be read without a script, filtered with one, copied from, on any screen."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.pages import picture
from tests.browser.test_page_looks import SCREENS, serious
from tests.live.service import Service


def shown(tab: Page) -> Locator:
    return tab.locator("article[data-entry]:visible")


def test_the_filter_leaves_what_has_all_its_words(tab: Page, demo: Service) -> None:
    tab.goto(f"{demo.url}/docs")
    all_of_them = shown(tab).count()

    tab.keyboard.press("/")
    tab.get_by_label("Filter operations").press_sequentially("thread delete")

    expect(shown(tab)).not_to_have_count(all_of_them)
    expect(tab.locator("#op-deleteThread")).to_be_visible()
    expect(tab.locator("#op-listThreads")).to_be_hidden()
    expect(tab.get_by_role("navigation").get_by_role("link", name="List conversations")).to_be_hidden()

    tab.get_by_label("Filter operations").fill("nothing has this word")
    expect(shown(tab)).to_have_count(0)
    expect(tab.get_by_text("Nothing matches.")).to_be_visible()


def test_a_link_to_what_the_filter_hides_shows_it(tab: Page, demo: Service) -> None:
    tab.goto(f"{demo.url}/docs")
    tab.get_by_label("Filter operations").fill("create a run")
    expect(tab.locator("#schema-Snapshot")).to_be_hidden()

    tab.evaluate("location.hash = '#schema-Snapshot'")

    expect(tab.locator("#schema-Snapshot")).to_be_in_viewport()


def test_a_language_is_chosen_for_all_and_kept_and_copied(tab: Page, demo: Service) -> None:
    tab.goto(f"{demo.url}/docs")
    create = tab.locator("#op-createStream")

    create.get_by_role("radio", name="Python").check(force=True)

    other = tab.locator("#op-createChatCompletion pre[data-language=Python]")
    expect(other).to_be_visible()
    tab.reload()
    expect(other).to_be_visible()
    create.get_by_role("button", name="Copy").click()
    expect(create.get_by_role("button", name="Copied")).to_be_visible()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert "import httpx" in copied
    assert f"{demo.url}/streams" in copied


def test_without_a_script_all_can_be_read_and_languages_chosen(plain_tab: Page, demo: Service) -> None:
    plain_tab.goto(f"{demo.url}/docs")

    create = plain_tab.locator("#op-createStream")
    expect(create.locator("pre[data-language=curl]")).to_be_visible()
    create.get_by_text("JavaScript", exact=True).click()
    expect(create.locator("pre[data-language=JavaScript]")).to_be_visible()
    expect(create.locator("pre[data-language=curl]")).to_be_hidden()
    expect(plain_tab.get_by_label("Filter operations")).to_be_hidden()


@pytest.mark.parametrize("screen", list(SCREENS))
def test_what_it_looks_like(new_context: Callable[..., BrowserContext], demo: Service, screen: str) -> None:
    tab = new_context(**SCREENS[screen], bypass_csp=True).new_page()
    tab.goto(f"{demo.url}/docs#op-createStream")
    expect(tab.locator("#op-createStream")).to_be_in_viewport()

    picture(tab, f"docs-{screen}")

    assert serious(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
