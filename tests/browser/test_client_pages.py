"""The pages of ``examples/clients`` in Chromium, as the service's own origin would serve them."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.live.cable import Cable
from tests.live.service import REPOSITORY, Service, Upstream

PAGES = ("eventsource", "fetch")
Open = Callable[[Service | Cable], Page]


@pytest.fixture(params=PAGES)
def opened(request: pytest.FixtureRequest, tab: Page) -> Open:
    """Open one of the pages: ``opened(where)``."""
    body = (REPOSITORY / "examples" / "clients" / f"{request.param}.html").read_text()

    def open_page(where: Service | Cable) -> Page:
        tab.route(f"{where.url}/example", lambda route: route.fulfill(body=body, content_type="text/html"))
        tab.goto(f"{where.url}/example")
        return tab

    return open_page


def ask(tab: Page, **script: object) -> None:
    tab.locator("input").fill(f"play <<{json.dumps(script)}>>")
    tab.get_by_text("Ask", exact=True).click()


def words(count: int) -> str:
    return "".join(f"w{i} " for i in range(count))


def test_a_page_shows_the_answer_as_text(service: Service, opened: Open) -> None:
    tab = opened(service)
    text = "<img src=x onerror=alert(1)> **a**\nb"
    ask(tab, text=text, pieces=5)
    expect(tab.locator("#state")).to_have_text("stop")
    assert tab.locator("#answer").text_content() == text


def test_a_page_goes_on_where_the_network_was_cut(opened: Open, cable: Cable) -> None:
    tab = opened(cable)
    ask(tab, tokens=150, pace_ms=20)
    for place in ("w10 ", "w60 "):
        expect(tab.locator("#answer")).to_contain_text(place)
        cable.cut()
        cable.mend()
    expect(tab.locator("#state")).to_have_text("stop")
    assert tab.locator("#answer").text_content() == words(150)


def test_a_page_stops_the_run(service: Service, upstream: Upstream, opened: Open) -> None:
    tab = opened(service)
    token = f"example-{id(tab)}"
    ask(tab, tokens=2000, pace_ms=20, token=token)
    expect(tab.locator("#answer")).to_contain_text("w5 ")
    tab.get_by_text("Stop").click()
    expect(tab.locator("#state")).to_have_text("cancelled")
    upstream.wait_for_close(token)


def test_a_page_tells_a_failure_and_a_refusal(service: Service, opened: Open) -> None:
    tab = opened(service)
    ask(tab, play="cut", after=3)
    expect(tab.locator("#state")).to_contain_text("model")
    assert tab.locator("#answer").text_content() == words(3)
    tab.locator("input").fill(" ")
    tab.get_by_text("Ask", exact=True).click()
    expect(tab.locator("#state")).to_have_text("prompt: it is empty")
