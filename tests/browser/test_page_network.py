"""The page on a network and a service that fail: nothing lost, nothing twice, and it says what is wrong."""

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.browser.conftest import Cable, StartService
from tests.browser.pages import (
    LONG_SECONDS,
    announced,
    answer_of,
    ask,
    expect_state,
    field,
    held,
    is_event_stream,
    prompt_for,
    send,
    slow,
    source_of,
    status,
    stream_of,
    wait_for_text,
    words,
)
from tests.live.service import Service, Upstream, wait_until
from tests.live.upstream import contents

LOST = "Connection lost, reconnecting"


def alone(tab: Page) -> None:
    """Have the tab follow by itself: what Playwright does to requests does not reach a shared worker."""
    tab.add_init_script("delete window.SharedWorker")


def test_a_worker_that_is_killed_leaves_an_interrupted_answer(
    tab: Page, start_service: StartService, token: str
) -> None:
    service = start_service()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    before = wait_for_text(tab, 60)

    service.kill_worker()

    expect_state(tab, "interrupted")
    expect(status(tab)).to_contain_text("Interrupted: ")
    expect(status(tab)).to_contain_text("Trying again may help. The text so far is kept.")
    expect(announced(tab)).to_contain_text("Interrupted: ")
    snapshot = service.snapshot(stream_of(tab))
    assert snapshot["state"] == "interrupted"
    assert source_of(tab) == snapshot["text"]
    assert answer_of(tab).startswith(before.strip())
    expect(tab.get_by_role("button", name="Try again")).to_be_visible()


def test_a_service_that_is_killed_and_started_again_is_found_again(
    tab: Page, start_service: StartService, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    before = wait_for_text(tab, 60)

    service.kill()
    expect(words(tab)).to_have_text(LOST)
    expect(announced(tab)).to_contain_text(LOST)
    monkeypatch.setattr("tests.live.service.free_port", lambda: service.port)
    start_service()

    expect_state(tab, "interrupted")
    assert answer_of(tab).startswith(before.strip())
    assert source_of(tab) == service.snapshot(stream_of(tab))["text"]


def test_a_network_that_is_cut_costs_no_character(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    alone(tab)
    script = held(token)
    ask(tab, service, prompt_for(token, **script))
    upstream.let(token, 5)
    before = wait_for_text(tab, len("".join(contents(script)[:5]).strip()))

    # It lets the open stream be: this is told by asking, until the next token comes.
    tab.context.set_offline(True)
    expect(words(tab)).to_have_text(LOST)
    tab.context.set_offline(False)

    upstream.let(token, 20)
    wait_for_text(tab, len(before) + 10)
    expect(words(tab)).to_have_text("Writing")
    upstream.let(token)
    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_connections_that_break_cost_no_character(
    tab: Page, cable: Cable, upstream: Upstream, token: str
) -> None:
    script = held(token, tokens=300, pace_ms=40)
    ask(tab, cable, prompt_for(token, **script))

    for characters, tokens in ((60, 60), (300, 150)):
        upstream.let(token, tokens)  # more than are waited for: it is cut while they come
        wait_for_text(tab, characters)
        cable.cut()
        expect(words(tab)).to_have_text(LOST)
        cable.mend()
        expect(words(tab)).to_have_text("Writing")

    upstream.let(token)
    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_an_answer_that_ends_while_the_network_is_cut_is_shown_whole(
    tab: Page, service: Service, upstream: Upstream, cable: Cable, token: str
) -> None:
    script = held(token, tokens=60)
    ask(tab, cable, prompt_for(token, **script))
    stream_id = stream_of(tab)
    upstream.let(token, 20)
    wait_for_text(tab, 30)

    cable.cut()
    upstream.let(token)
    wait_until(lambda: service.snapshot(stream_id)["state"] == "completed", LONG_SECONDS, "the run has ended")
    cable.mend()

    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))


def test_a_refused_event_stream_is_opened_again(tab: Page, service: Service, token: str) -> None:
    refused: list[str] = []

    def refuse_twice(route: Route, request: Request) -> None:
        if is_event_stream(request) and len(refused) < 2:
            refused.append(request.url)
            route.fulfill(status=503, json={"error": {"type": "overloaded", "message": "too many"}})
        else:
            route.continue_()

    alone(tab)
    script = slow()
    tab.route("**/streams/*", refuse_twice)
    ask(tab, service, prompt_for(token, **script))

    expect_state(tab, "done")
    assert len(refused) == 2
    assert source_of(tab) == "".join(contents(script))


@pytest.mark.parametrize(
    "change", [('data-cursor="1.', 'data-cursor="7.'), ("w2 w3", "w2 XX")], ids=["cursor", "text"]
)
def test_a_page_that_does_not_fit_the_log_is_read_again_from_the_start(
    tab: Page, service: Service, upstream: Upstream, token: str, change: tuple[str, str]
) -> None:
    script = held(token)
    stream_id = service.create(prompt_for(token, **script))
    upstream.let(token, 30)
    wait_until(lambda: len(service.snapshot(stream_id)["text"]) > 40, LONG_SECONDS, "the answer has begun")

    def spoil(route: Route) -> None:
        response = route.fetch()
        assert change[0] in response.text()
        route.fulfill(response=response, body=response.text().replace(*change))

    tab.route("**/?stream=*", spoil)
    tab.goto(f"{service.url}/?stream={stream_id}")
    upstream.let(token)

    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))
    assert answer_of(tab).strip() == "".join(contents(script)).strip()


def test_a_network_that_holds_event_streams_back_is_polled(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    def hold_back(route: Route, request: Request) -> None:
        if not is_event_stream(request):
            route.continue_()

    alone(tab)
    script = held(token)
    tab.route("**/streams/*", hold_back)
    ask(tab, service, prompt_for(token, **script))
    upstream.let(token, 50)

    expect(words(tab)).to_have_text("This network holds streams back: polling")
    expect(announced(tab)).to_contain_text("polling")
    assert len(wait_for_text(tab, 10)) < len("".join(contents(script)))
    upstream.let(token)
    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_a_browser_without_event_source_polls_at_once(tab: Page, service: Service, token: str) -> None:
    tab.add_init_script("delete window.EventSource; delete window.SharedWorker")
    script = slow(tokens=60)
    tab.goto(service.url)
    field(tab).fill(prompt_for(token, **script))
    send(tab).click()

    expect_state(tab, "done")
    assert source_of(tab) == "".join(contents(script))


# Streams that are not there


def test_an_unknown_stream_is_a_page_with_a_way_on(tab: Page, service: Service, token: str) -> None:
    response = tab.goto(f"{service.url}/?stream=st_nothing")

    assert response
    assert response.status == 404
    expect(tab.get_by_role("heading", name="This answer is not here")).to_be_visible()
    field(tab).fill(prompt_for(token, text="something new"))
    send(tab).click()
    expect_state(tab, "done")
    assert answer_of(tab) == "something new"
    expect(tab.get_by_role("heading", name="This answer is not here")).to_be_hidden()


@pytest.mark.parametrize("where", ["erased", "in another store"])
def test_a_stream_that_was_lost_is_a_page_that_says_so(
    tab: Page, service: Service, token: str, where: str
) -> None:
    stream_id = f"st_{'a' * 34}"
    if where == "erased":
        stream_id = service.create(prompt_for(token))
        service.request("DELETE", f"/streams/{stream_id}")

    response = tab.goto(f"{service.url}/?stream={stream_id}")

    assert response
    assert response.status == 410
    expect(tab.locator("#intro")).to_contain_text(where)
    expect(field(tab)).to_be_visible()


def test_a_stream_that_is_erased_under_the_reader_keeps_its_text(
    tab: Page, service: Service, cable: Cable, token: str
) -> None:
    ask(tab, cable, prompt_for(token, **slow(tokens=1000)))
    text = wait_for_text(tab, 30)

    cable.cut()
    service.request("DELETE", f"/streams/{stream_of(tab)}")
    cable.mend()

    expect_state(tab, "gone")
    expect(status(tab)).to_contain_text("erased")
    expect(status(tab)).to_contain_text("The text so far is kept.")
    assert answer_of(tab).startswith(text.strip())
