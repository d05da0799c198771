"""What a reader does with the page, and what they see: one function for each."""

import json
import urllib.parse
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

from tests.browser.conftest import Cable
from tests.live.service import PATIENCE_SECONDS, Service, wait_until
from tests.live.upstream import Script

ARTEFACTS = Path(__file__).parents[1] / "artefacts"
"""Where screenshots are kept; not under version control."""
LONG_SECONDS = 3 * PATIENCE_SECONDS
"""How long an answer is waited for that takes some seconds itself."""


def prompt_for(token: str, **script: Any) -> str:
    """Return a question that makes the upstream play ``script``, logged under ``token``."""
    return f"please <<{json.dumps({'token': token, **script})}>>"


def slow(tokens: int = 100, pace_ms: int = 40) -> Script:
    """Return a script for an answer that takes some seconds."""
    return {"tokens": tokens, "pace_ms": pace_ms}


def held(gate: str, tokens: int = 100, pace_ms: int = 20) -> Script:
    """Return a script for an answer that goes on as far as the test lets it: ``upstream.let(gate, 30)``.

    What has to be seen in the middle of an answer is seen there, however long that takes.
    """
    return {"tokens": tokens, "pace_ms": pace_ms, "gate": gate}


# Asking


def field(tab: Page) -> Locator:
    return tab.get_by_label("Your question")


def send(tab: Page) -> Locator:
    return tab.get_by_role("button", name="Send", exact=True)


def stop(tab: Page) -> Locator:
    return tab.get_by_role("button", name="Stop", exact=True)


def open_blank(tab: Page, url: str) -> None:
    """Open a document of the service's origin in which a test's scripts may run: its own answers let none."""
    tab.context.new_cdp_session(tab).send("Page.setBypassCSP", {"enabled": True})
    tab.goto(f"{url}/healthz")


def ask(tab: Page, service: Service | Cable, question: str) -> None:
    """Open the page and send ``question`` with the Enter key."""
    tab.goto(service.url)
    ask_more(tab, question)


def ask_more(tab: Page, question: str) -> None:
    """Send ``question`` on the page that is open."""
    field(tab).fill(question)
    field(tab).press("Enter")


def ask_and_wait(tab: Page, question: str) -> None:
    """Send ``question`` on the page that is open, and wait for the end of its answer."""
    before = tab.locator(".turn").count()
    ask_more(tab, question)
    expect(tab.locator(".turn")).to_have_count(before + 1)
    expect_state(tab, "done")


def choose(tab: Page, name: str) -> None:
    """Choose who answers."""
    tab.get_by_label("Model or agent").select_option(label=name)


# Looking


def turn(tab: Page, place: int = -1) -> Locator:
    """Return the turn at ``place``, the last one for -1."""
    return tab.locator(".turn").nth(place)


def answer(tab: Page, place: int = -1) -> Locator:
    return turn(tab, place).locator(".answer .parts")


def answer_of(tab: Page, place: int = -1) -> str:
    """Return the answer's text as it is shown."""
    return "".join(answer(tab, place).locator(":scope > .text .markdown").all_text_contents()).strip("\n")


def source_of(tab: Page, place: int = -1) -> str:
    """Return the answer's text as it was written, from the clipboard."""
    # The button may say "Copied" of the last time: that the clipboard has changed is what counts.
    before = "nothing was copied"
    tab.evaluate("text => navigator.clipboard.writeText(text)", before)
    turn(tab, place).locator(".answer").hover()
    turn(tab, place).locator(".action.copy").click()
    expect(turn(tab, place).locator(".action.copy")).to_have_text("Copied")
    copied = "navigator.clipboard.readText()"
    wait_until(lambda: tab.evaluate(copied) != before, PATIENCE_SECONDS, "the answer is on the clipboard")
    return str(tab.evaluate(copied))


def wait_for_text(tab: Page, characters: int) -> str:
    """Return the answer once it has so many characters."""
    wait_until(
        lambda: len(answer_of(tab)) >= characters, LONG_SECONDS, f"the answer has {characters} characters"
    )
    return answer_of(tab)


def expect_state(tab: Page, state: str, seconds: float = LONG_SECONDS) -> None:
    """``busy``, ``done``, ``stopped``, ``interrupted``, ``error`` or ``gone``."""
    expect(turn(tab)).to_have_attribute("data-state", state, timeout=seconds * 1000)


def status(tab: Page, place: int = -1) -> Locator:
    """Return the words that are shown beside an answer."""
    return turn(tab, place).locator(".status")


def words(tab: Page) -> Locator:
    return turn(tab).locator("[data-slot=words]")


def notice(tab: Page) -> Locator:
    return tab.get_by_role("alert")


def announced(tab: Page) -> Locator:
    """Return what a screen reader is told."""
    return tab.locator("#announced")


def questions(tab: Page) -> list[str]:
    return tab.locator(".question .bubble").all_text_contents()


def answers(tab: Page) -> list[str]:
    return [answer_of(tab, place) for place in range(tab.locator(".turn").count())]


def listed(tab: Page) -> Locator:
    """Return the links of the list of conversations."""
    return tab.locator("#threads .open")


def stream_of(tab: Page, place: int = -1) -> str:
    """Return the id of the stream of an answer."""
    expect(turn(tab, place)).to_be_visible()
    return turn(tab, place).get_attribute("data-stream") or ""


def thread_of(tab: Page) -> str:
    """Return the id of the conversation that is shown."""
    tab.wait_for_url("**/?thread=*")
    return urllib.parse.parse_qs(urllib.parse.urlsplit(tab.url).query)["thread"][0]


def picture(tab: Page, name: str, *, whole: bool = False) -> None:
    """Keep a screenshot as an artefact."""
    ARTEFACTS.mkdir(exist_ok=True)
    tab.screenshot(path=ARTEFACTS / f"{name}.png", full_page=whole, animations="disabled")


# Requests


def is_event_stream(request: Request) -> bool:
    return request.resource_type == "eventsource" or request.headers.get("accept") == "text/event-stream"


def is_question(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/streams")
