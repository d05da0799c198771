"""``/ws`` and a browser: the snippet of docs/websocket.md, and who may connect."""

import json

from playwright.sync_api import Page

from tests.browser.conftest import LAN_HOST, Cable
from tests.browser.pages import open_blank
from tests.live.service import Service
from tests.live.upstream import contents
from tests.snippets import snippet


def test_the_snippet_for_a_page_loses_nothing_when_the_network_goes(tab: Page, cable: Cable) -> None:
    open_blank(tab, cable.url)
    tab.evaluate(f"() => {{ {snippet('docs/websocket.md', 'js browser', cable.port)}; window.ask = ask; }}")
    prompt = f"<<{json.dumps({'tokens': 150, 'pace_ms': 20})}>>"
    tab.evaluate(
        """(prompt) => {
            window.told = [];
            window.ended = ask(prompt, (text) => told.push(text));
        }""",
        prompt,
    )
    for tokens in (5, 50):
        tab.wait_for_function("(tokens) => told.length > tokens", arg=tokens)
        cable.cut()
        cable.mend()

    last = tab.evaluate("() => ended")

    assert (last["type"], last["finish_reason"]) == ("done", "stop")
    assert tab.evaluate("() => told.join('')") == "".join(contents({"tokens": 150}))


def test_the_snippet_says_why_a_question_is_refused(tab: Page, cable: Cable) -> None:
    open_blank(tab, cable.url)
    tab.evaluate(f"() => {{ {snippet('docs/websocket.md', 'js browser', cable.port)}; window.ask = ask; }}")
    told = tab.evaluate("() => ask('', () => {}).catch((error) => error.message)")
    assert told == "prompt: it is empty"


OPEN = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
})"""


def test_a_page_of_another_site_may_not_connect(tab: Page, service: Service) -> None:
    ours = f"127.0.0.1:{service.port}"
    open_blank(tab, f"http://{ours}")
    assert tab.evaluate(OPEN, f"ws://{ours}/ws") == "open"
    open_blank(tab, f"http://{LAN_HOST}:{service.port}")
    assert tab.evaluate(OPEN, f"ws://{ours}/ws") == "refused"
    assert tab.evaluate(OPEN, f"ws://{LAN_HOST}:{service.port}/ws") == "open"
