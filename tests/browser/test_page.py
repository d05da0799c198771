"""The page as its readers meet it: a real browser, a real service, a network that fails."""

import http.client
import itertools
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Request, Route, expect

from tests.browser.conftest import DEMO, LAN_HOST, Cable, StartService
from tests.live.service import Service, Upstream, wait_until
from tests.live.upstream import Script, contents

pytestmark = pytest.mark.timeout(60)

MARKUP = (
    "<script>window.broken = 1</script><img src='/x' onerror='window.broken = 2'><b>bold</b> & \"so\"\r\n on"
)

_numbers = itertools.count(1)


@pytest.fixture
def token() -> str:
    """A name nobody else uses in the upstream's log."""
    return f"page-{next(_numbers)}"


@pytest.fixture
def second_tab(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab in a browser context of its own."""
    return new_context().new_page()


def prompt_for(token: str, **script: Any) -> str:
    """Return a question that makes the upstream play ``script``, logged under ``token``."""
    return f"please <<{json.dumps({'token': token, **script})}>>"


def slow(tokens: int = 100, pace_ms: int = 40) -> Script:
    """Return a script for an answer that takes some seconds."""
    return {"tokens": tokens, "pace_ms": pace_ms}


def ask(tab: Page, service: Service | Cable, question: str) -> None:
    """Open the page and send ``question`` with the Enter key."""
    tab.goto(service.url)
    tab.get_by_label("Your question").fill(question)
    tab.get_by_label("Your question").press("Enter")


def answer_of(tab: Page) -> str:
    return tab.locator("#answer").text_content() or ""


def wait_for_text(tab: Page, characters: int) -> str:
    """Return the answer once it has so many characters."""
    wait_until(lambda: len(answer_of(tab)) >= characters, 15, f"the answer has {characters} characters")
    return answer_of(tab)


def expect_state(tab: Page, state: str, seconds: float = 20) -> None:
    expect(tab.locator("#page")).to_have_attribute("data-state", state, timeout=seconds * 1000)


def status(tab: Page) -> Locator:
    return tab.get_by_role("status")


def stream_of(tab: Page) -> str:
    """Return the id of the stream the page shows."""
    tab.wait_for_url("**/?stream=*")
    return urllib.parse.parse_qs(urllib.parse.urlsplit(tab.url).query)["stream"][0]


def is_event_stream(request: Request) -> bool:
    return request.resource_type == "eventsource"


def listens_alone(tab: Page) -> None:
    """Take shared workers away: a test cannot hold back what they ask for, nor take them offline."""
    tab.add_init_script("delete window.SharedWorker")


def is_question(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/streams")


# An answer


def test_the_answer_grows_while_it_is_written(tab: Page, service: Service, token: str) -> None:
    script = slow()
    whole = "".join(contents(script))

    ask(tab, service, prompt_for(token, **script))
    first = wait_for_text(tab, 10)
    expect(status(tab)).to_have_text("Writing")
    second = wait_for_text(tab, len(first) + 30)

    assert whole.startswith(first)
    assert whole.startswith(second)
    assert len(first) < len(second) < len(whole)
    expect_state(tab, "done")
    assert answer_of(tab) == whole
    assert service.snapshot(stream_of(tab))["text"] == whole
    expect(status(tab)).to_contain_text("100 tokens in")
    expect(status(tab)).to_contain_text("tokens/s")


def test_a_long_answer_is_cut_into_blocks_without_changing_its_text(
    tab: Page, service: Service, token: str
) -> None:
    text = "".join(f"line {i} of a long answer\n{'' if i % 7 else chr(10)}" for i in range(1500))

    ask(tab, service, prompt_for(token, text=text, pieces=90, pace_ms=20))
    expect_state(tab, "done")

    assert answer_of(tab) == text
    assert tab.locator("#answer .block").count() > 5


def test_a_reload_in_the_middle_neither_loses_nor_repeats_a_character(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = slow()
    ask(tab, service, prompt_for(token, **script))

    for characters in (20, 90, 180):
        wait_for_text(tab, characters)
        tab.reload()

    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_two_tabs_on_one_answer_show_the_same(
    tab: Page, second_tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = slow()
    ask(tab, service, prompt_for(token, **script))
    wait_for_text(tab, 60)

    second_tab.goto(tab.url)

    for each in (tab, second_tab):
        expect_state(each, "done")
        assert answer_of(each) == "".join(contents(script))
    assert status(tab).text_content() == status(second_tab).text_content()
    assert len(upstream.log(token)) == 1


def test_stop_keeps_the_text_and_cancels_the_run(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 30)

    tab.get_by_role("button", name="Stop").click()

    expect_state(tab, "stopped")
    upstream.wait_for_close(token)
    expect(status(tab)).to_contain_text("Stopped; the text so far is kept.")
    snapshot = service.snapshot(stream_of(tab))
    assert snapshot["state"] == "cancelled"
    assert answer_of(tab) == snapshot["text"] != ""
    said = status(tab).text_content()
    tab.reload()
    assert (answer_of(tab), status(tab).text_content()) == (snapshot["text"], said)


def test_back_and_forward_show_the_answer_of_their_address(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text="the first answer"))
    expect_state(tab, "done")
    tab.get_by_label("Your question").fill(prompt_for(token, text="the second answer"))
    tab.get_by_role("button", name="Ask", exact=True).click()
    expect(tab.locator("#answer")).to_have_text("the second answer")
    expect_state(tab, "done")

    tab.go_back()
    expect(tab.locator("#answer")).to_have_text("the first answer")
    tab.go_forward()
    expect(tab.locator("#answer")).to_have_text("the second answer")
    tab.get_by_role("link", name="New question").click()
    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()


def test_reasoning_is_folded_and_tool_calls_are_named_also_after_a_reload(
    tab: Page, service: Service, token: str
) -> None:
    call = {"index": 0, "id": "call-1", "function": {"name": "rain", "arguments": '{"where":"<here>"}'}}
    deltas = [{"reasoning_content": "Let me "}, {"reasoning_content": "think."}, {"content": "I looked."}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in [*deltas, {"tool_calls": [call]}]]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "test-model"}

    ask(tab, service, prompt_for(token, raw_chunks=[head | chunk for chunk in chunks]))
    expect_state(tab, "done")

    for _look in ("live", "reloaded"):
        expect(tab.get_by_role("listitem")).to_have_text('Tool call: rain({"where":"<here>"})')
        expect(tab.locator("#answer")).to_have_text("I looked.")
        expect(tab.get_by_text("Let me think.")).to_be_hidden()
        tab.get_by_text("Reasoning", exact=True).click()
        expect(tab.get_by_text("Let me think.")).to_be_visible()
        tab.reload()


def test_the_page_works_over_plain_http_from_another_machine(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(f"http://{LAN_HOST}:{service.port}")
    assert not tab.evaluate("isSecureContext")
    tab.get_by_label("Your question").fill(prompt_for(token, text="over the wire"))
    tab.get_by_role("button", name="Ask", exact=True).click()

    expect_state(tab, "done")
    assert answer_of(tab) == "over the wire"
    assert len(upstream.log(token)) == 1


# Asking


def test_a_question_whose_answer_was_lost_on_the_way_is_asked_once(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    keys: list[str | None] = []

    def lose_the_first(route: Route, request: Request) -> None:
        if is_question(request):
            keys.append(request.header_value("idempotency-key"))
            if len(keys) == 1:
                route.fetch()
                route.abort("connectionreset")
                return
        route.continue_()

    tab.route("**/streams", lose_the_first)
    ask(tab, service, prompt_for(token))

    expect_state(tab, "done")
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None
    assert len(upstream.log(token)) == 1


def test_a_question_that_cannot_be_sent_is_kept_for_a_retry(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(service.url)
    tab.context.set_offline(True)
    tab.get_by_label("Your question").fill(prompt_for(token))
    tab.get_by_role("button", name="Ask", exact=True).click()
    expect(tab.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    expect_state(tab, "error")
    expect(status(tab)).to_have_text("The service cannot be reached.")
    assert tab.get_by_label("Your question").input_value() == prompt_for(token)

    tab.context.set_offline(False)
    tab.get_by_role("button", name="Retry").press("Enter")

    expect_state(tab, "done")
    assert len(upstream.log(token)) == 1


def test_a_question_that_is_refused_says_why(tab: Page, service: Service) -> None:
    ask(tab, service, "x" * 200_001)

    expect_state(tab, "refused")
    expect(status(tab)).to_have_text("Prompt: 200001 characters, at most 200000.")
    expect(tab.get_by_role("button", name="Ask again")).to_be_hidden()


def test_an_upstream_that_refuses_is_an_error_with_a_way_on(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, play="cut", after=3, tokens=6, attempts_fail=1, pace_ms=20))
    expect_state(tab, "error")
    expect(status(tab)).to_contain_text("Error: ")
    expect(status(tab)).to_contain_text("Asking again may help. The text so far is kept.")
    assert answer_of(tab) == "w0 w1 w2 "
    said = status(tab).text_content()
    tab.reload()
    assert (answer_of(tab), status(tab).text_content()) == ("w0 w1 w2 ", said)

    tab.get_by_role("button", name="Ask again").click()

    expect_state(tab, "done")
    assert answer_of(tab) == "w0 w1 w2 w3 w4 w5 "
    assert len(upstream.log(token)) == 2


def test_a_silent_model_is_called_silent(tab: Page, service: Service, token: str) -> None:
    tab.clock.install()
    ask(tab, service, prompt_for(token, play="half_open", after=2, tokens=3))
    wait_for_text(tab, 6)

    tab.clock.fast_forward(12_000)

    expect(status(tab)).to_have_text("The model is silent")
    tab.get_by_role("button", name="Stop").click()
    expect_state(tab, "stopped")


# A network and a service that fail


def test_a_worker_that_is_killed_leaves_an_interrupted_answer(
    tab: Page, start_service: StartService, token: str
) -> None:
    service = start_service()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    before = wait_for_text(tab, 60)

    service.kill_worker()

    expect_state(tab, "interrupted")
    expect(status(tab)).to_contain_text("Interrupted: ")
    expect(status(tab)).to_contain_text("Asking again may help. The text so far is kept.")
    snapshot = service.snapshot(stream_of(tab))
    assert snapshot["state"] == "interrupted"
    assert answer_of(tab) == snapshot["text"]
    assert answer_of(tab).startswith(before)
    expect(tab.get_by_role("button", name="Ask again")).to_be_visible()


def test_a_service_that_is_killed_and_started_again_is_found_again(
    tab: Page, start_service: StartService, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    before = wait_for_text(tab, 60)

    service.kill()
    expect(status(tab)).to_have_text("Connection lost, reconnecting")
    monkeypatch.setattr("tests.live.service.free_port", lambda: service.port)
    start_service()

    expect_state(tab, "interrupted")
    assert answer_of(tab).startswith(before)
    assert answer_of(tab) == service.snapshot(stream_of(tab))["text"]


def test_a_network_that_is_cut_costs_no_character(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = slow(tokens=200)
    listens_alone(tab)
    ask(tab, service, prompt_for(token, **script))
    before = wait_for_text(tab, 60)

    tab.context.set_offline(True)
    expect(status(tab)).to_have_text("Connection lost, reconnecting")
    tab.context.set_offline(False)

    wait_for_text(tab, len(before) + 60)
    expect(status(tab)).to_have_text("Writing")
    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_connections_that_break_cost_no_character(
    tab: Page, cable: Cable, upstream: Upstream, token: str
) -> None:
    script = slow(tokens=200)
    ask(tab, cable, prompt_for(token, **script))

    for characters in (60, 300):
        wait_for_text(tab, characters)
        cable.cut()
        expect(status(tab)).to_have_text("Connection lost, reconnecting")
        cable.mend()
        expect(status(tab)).to_have_text("Writing")

    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_an_answer_that_ends_while_the_network_is_cut_is_shown_whole(
    tab: Page, service: Service, cable: Cable, token: str
) -> None:
    script = slow(tokens=60)
    ask(tab, cable, prompt_for(token, **script))
    stream_id = stream_of(tab)
    wait_for_text(tab, 30)

    cable.cut()
    wait_until(lambda: service.snapshot(stream_id)["state"] == "completed", 15, "the run has ended")
    cable.mend()

    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))


def test_a_refused_event_stream_is_opened_again(tab: Page, service: Service, token: str) -> None:
    refused: list[str] = []

    def refuse_twice(route: Route, request: Request) -> None:
        if is_event_stream(request) and len(refused) < 2:
            refused.append(request.url)
            route.fulfill(status=503, json={"error": {"type": "overloaded", "message": "too many"}})
        else:
            route.continue_()

    script = slow()
    listens_alone(tab)
    tab.route("**/streams/*", refuse_twice)
    ask(tab, service, prompt_for(token, **script))

    expect_state(tab, "done")
    assert len(refused) == 2
    assert answer_of(tab) == "".join(contents(script))


@pytest.mark.parametrize(
    "change", [('data-cursor="1.', 'data-cursor="7.'), ("w2 w3", "w2 XX")], ids=["cursor", "text"]
)
def test_a_page_that_does_not_fit_the_log_is_read_again_from_the_start(
    tab: Page, service: Service, token: str, change: tuple[str, str]
) -> None:
    script = slow()
    stream_id = service.create(prompt_for(token, **script))
    wait_until(lambda: len(service.snapshot(stream_id)["text"]) > 40, 10, "the answer has begun")

    def spoil(route: Route) -> None:
        response = route.fetch()
        assert change[0] in response.text()
        route.fulfill(response=response, body=response.text().replace(*change))

    tab.route("**/?stream=*", spoil)
    tab.goto(f"{service.url}/?stream={stream_id}")

    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))


def test_a_network_that_holds_event_streams_back_is_polled(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    def hold_back(route: Route, request: Request) -> None:
        if not is_event_stream(request):
            route.continue_()

    script = slow(tokens=250)
    listens_alone(tab)
    tab.route("**/streams/*", hold_back)
    ask(tab, service, prompt_for(token, **script))

    expect(status(tab)).to_have_text("This network holds streams back: polling", timeout=12_000)
    assert len(wait_for_text(tab, 10)) < len("".join(contents(script)))
    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))
    assert len(upstream.log(token)) == 1


def test_a_browser_without_event_source_listens_all_the_same(tab: Page, service: Service, token: str) -> None:
    tab.add_init_script("delete window.EventSource")
    script = slow(tokens=60)

    ask(tab, service, prompt_for(token, **script))

    expect(status(tab)).to_have_text("Writing")
    expect_state(tab, "done")
    assert answer_of(tab) == "".join(contents(script))


# Streams that are not there


def test_an_unknown_stream_is_a_page_with_a_way_on(tab: Page, service: Service, token: str) -> None:
    response = tab.goto(f"{service.url}/?stream=st_nothing")

    assert response
    assert response.status == 404
    expect(tab.get_by_role("heading", name="This answer is not here")).to_be_visible()
    tab.get_by_label("Your question").fill(prompt_for(token, text="something new"))
    tab.get_by_role("button", name="Ask", exact=True).click()
    expect(tab.locator("#answer")).to_have_text("something new")
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
    expect(tab.get_by_label("Your question")).to_be_visible()


def test_a_stream_that_is_erased_under_the_reader_keeps_its_text(
    tab: Page, service: Service, cable: Cable, token: str
) -> None:
    ask(tab, cable, prompt_for(token, **slow(tokens=1000)))
    text = wait_for_text(tab, 30)

    cable.cut()
    service.request("DELETE", f"/streams/{stream_of(tab)}")
    cable.mend()

    expect_state(tab, "error")
    expect(status(tab)).to_contain_text("erased")
    assert answer_of(tab).startswith(text)


# Safety


def test_markup_in_the_question_and_the_answer_stays_text(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text=MARKUP, pieces=20, pace_ms=20))
    expect_state(tab, "done")

    for _look in ("live", "reloaded"):
        assert answer_of(tab) == MARKUP
        assert tab.locator("main :is(script, img, b)").count() == 0
        assert tab.evaluate("window.broken") is None
        tab.reload()


def test_the_page_has_a_policy_that_allows_its_own_files_only(service: Service) -> None:
    answer = service.request("GET", "/")

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("header", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://other.example"}])
def test_a_form_on_another_site_cannot_ask(service: Service, header: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    form = {"Content-Type": "application/x-www-form-urlencoded", **header}
    connection.request("POST", "/", "prompt=pay+for+me", form)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()

    assert answer.status == 403
    assert "sent by another site" in body


# Every reader


@pytest.fixture
def plain_tab(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab without JavaScript."""
    return new_context(java_script_enabled=False).new_page()


def test_the_page_works_without_javascript(
    plain_tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = slow(tokens=40, pace_ms=60)
    plain_tab.goto(service.url)
    plain_tab.get_by_label("Your question").fill(prompt_for(token, **script))
    plain_tab.get_by_role("button", name="Ask", exact=True).click()

    expect(plain_tab.get_by_role("link", name="Look again now")).to_be_visible()
    expect_state(plain_tab, "done")

    assert answer_of(plain_tab) == "".join(contents(script))
    expect(status(plain_tab)).to_contain_text("40 tokens in")
    assert len(upstream.log(token)) == 1


def test_a_refused_question_is_kept_without_javascript(plain_tab: Page, service: Service) -> None:
    plain_tab.goto(service.url)
    plain_tab.get_by_label("Your question").fill("x" * 200_001)
    plain_tab.get_by_role("button", name="Ask", exact=True).click()

    expect(status(plain_tab)).to_have_text("Prompt: 200001 characters, at most 200000.")
    assert len(plain_tab.get_by_label("Your question").input_value()) == 200_001


def test_the_keyboard_is_enough(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, "first\n" + prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 20)

    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="New question")).to_be_focused()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="Stop")).to_be_focused()
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")

    expect_state(tab, "stopped")
    expect(tab.get_by_role("button", name="Ask again")).to_be_focused()


def test_shift_enter_starts_a_line(tab: Page, demo: Service) -> None:
    tab.goto(demo.url)
    expect(tab.get_by_label("Your question")).to_be_focused()
    tab.keyboard.type("one")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("two")
    tab.keyboard.press("Enter")

    expect_state(tab, "done")
    expect(tab.locator("#question")).to_have_text("one\ntwo")


def test_a_screen_reader_is_told_of_states_and_not_of_every_token(
    tab: Page, service: Service, token: str
) -> None:
    tab.goto(service.url)
    assert tab.locator("html").get_attribute("lang") == "en"
    tab.evaluate(
        """() => {
            window.said = [];
            const status = document.querySelector("[role=status]");
            new MutationObserver(() => said.push(status.textContent)).observe(status, {childList: true});
        }"""
    )
    tab.get_by_label("Your question").fill(prompt_for(token, **slow()))
    tab.get_by_role("button", name="Ask", exact=True).click()
    answer = tab.get_by_role("region", name="Answer", include_hidden=True)
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(tab.get_by_role("button", name="Stop")).to_be_focused()
    expect_state(tab, "done")

    expect(answer).to_have_attribute("aria-busy", "false")
    assert answer.get_attribute("aria-live") is None
    assert status(tab).get_attribute("aria-live") == "polite"
    said = tab.evaluate("said")
    assert said[0] == "Asking"
    assert said[-2] == "Writing"
    assert said[-1].startswith("Done. 100 tokens in")
    assert len(said) <= 6
    for button in tab.get_by_role("button").all():
        assert button.inner_text()


def test_a_narrow_screen_needs_no_sideways_scrolling(
    new_context: Callable[..., BrowserContext], service: Service, token: str
) -> None:
    tab = new_context(viewport={"width": 320, "height": 640}).new_page()
    ask(tab, service, prompt_for(token, text=f"{'unbroken' * 80}\n| a | {'-' * 300} |", pieces=9))
    expect_state(tab, "done")

    assert tab.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_reader_who_scrolled_up_is_left_there(tab: Page, service: Service, token: str) -> None:
    lines = "".join(f"line {i}\n" for i in range(300))
    ask(tab, service, prompt_for(token, text=lines, pieces=150, pace_ms=20))
    wait_for_text(tab, 600)
    assert tab.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 64")

    tab.evaluate("scrollTo(0, 100)")
    expect_state(tab, "done")

    assert tab.evaluate("scrollY") == 100


def test_the_header_says_that_the_demo_model_answers_and_how_to_change_that(
    tab: Page, demo: Service, service: Service
) -> None:
    tab.goto(demo.url)
    expect(tab.get_by_role("banner")).to_contain_text("demo model: no AI, no key")
    expect(tab.get_by_role("banner")).to_contain_text("set OPENAI_API_KEY and restart")

    tab.goto(service.url)
    expect(tab.get_by_role("banner")).to_contain_text("Answers come from test-model")


def test_readers_on_two_workers_see_the_demo_model_s_answer(
    tab: Page, second_tab: Page, demo: Service
) -> None:
    ask(tab, demo, "hello <img src=x onerror=alert(1)>, something long please")
    wait_for_text(tab, 100)
    second_tab.goto(tab.url)

    for each in (tab, second_tab):
        expect_state(each, "done", seconds=40)
        assert answer_of(each) == demo.snapshot(stream_of(tab))["text"]
        assert "<img src=x onerror=alert(1)>" in answer_of(each)


# Runnables


@pytest.mark.parametrize("scripted", [True, False], ids=["with scripts", "without"])
def test_a_runnable_is_chosen_answers_and_stays_chosen(
    new_context: Callable[..., BrowserContext], start_service: StartService, scripted: bool
) -> None:
    service = start_service(environment={**DEMO, "RUNNABLES": "agent=examples.agent:agent"})
    tab = new_context(java_script_enabled=scripted).new_page()
    tab.goto(service.url)
    tab.get_by_label("Ask", exact=True).select_option("agent")
    tab.get_by_label("Your question").fill("What is the weather in Paris?")
    tab.get_by_role("button", name="Ask", exact=True).click()
    expect(tab.locator("#model")).to_have_text("agent")

    wait_until(lambda: (tab.reload(), "celsius" in answer_of(tab))[1], 20, "the agent has answered")

    expect(tab.locator("#tools")).to_contain_text("get_weather")
    expect(tab.get_by_label("Ask", exact=True)).to_have_value("agent")
