"""Long answers and long conversations: the page stays quick."""

import json
import time
from collections.abc import Callable

from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import StartService
from tests.browser.pages import (
    answer,
    answer_of,
    ask,
    expect_state,
    listed,
    prompt_for,
    turn,
    wait_for_text,
)
from tests.browser.test_markdown import LONG_TASK_MS, main_thread_milliseconds
from tests.live.service import Service

TURNS = 200
TURN_TEXT = (
    "## Part\n\nA paragraph with **bold** text and `code`.\n\n- one\n- two\n\n```js\nconst x = 1;\n```\n" * 3
)


def long_answer(tokens: int) -> str:
    """Return Markdown of about so many tokens: prose, lists, a table and code."""
    part = (
        "## Section {i}\n\n" + "Words that make a paragraph, with *emphasis* and `code`. " * 6 + "\n\n"
        "1. first\n2. second with **bold**\n\n| a | b |\n| --- | --- |\n| {i} | x |\n\n"
        "```python\nfor i in range({i}):\n    print(i)  # {i}\n```\n\n"
    )
    parts = []
    while sum(map(len, parts)) < tokens * 4:
        parts.append(part.replace("{i}", str(len(parts))))
    return "".join(parts)


def test_a_conversation_of_many_turns_opens_fast(tab: Page, service: Service, token: str) -> None:
    thread = f"long-{time.time_ns()}"
    for _ in range(TURNS):
        stream_id = service.create(prompt_for(token, text=TURN_TEXT, pieces=1), thread=thread)
        with service.follow(stream_id) as reader:
            reader.read_all()

    tab.goto(f"{service.url}/?thread={thread}")  # warms the service
    timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    tab.reload()

    expect(tab.locator(".turn")).to_have_count(TURNS)
    assert tab.evaluate(timing) < 3000
    assert turn(tab).evaluate("each => each.getBoundingClientRect().bottom < innerHeight")
    assert tab.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY") < 64


def test_an_answer_of_20000_tokens_is_whole_and_the_page_answers_meanwhile(
    tab: Page, browser: Browser, service: Service, token: str
) -> None:
    text = long_answer(20_000)
    pieces = len(text) // 4
    ask(tab, service, prompt_for(token, text=text, pieces=pieces, pace_ms=1))
    wait_for_text(tab, 2000)
    browser.start_tracing(page=tab, categories=["toplevel", "devtools.timeline"])

    tab.mouse.wheel(0, -400)
    expect(tab.get_by_role("button", name="To the end")).to_be_visible()
    expect_state(tab, "done", seconds=150)
    tasks = main_thread_milliseconds(
        json.loads(browser.stop_tracing())["traceEvents"], "ThreadControllerImpl::RunTask"
    )

    shown = answer(tab).locator("h4").count()
    assert shown == text.count("## Section")
    assert answer(tab).locator("table").count() == shown
    assert len(answer_of(tab)) > len(text) * 0.8
    # Twenty times the pace of a fast model; in processor time, for the machine runs other tests besides.
    print(f"{len(tasks)} tasks, longest {max(tasks):.1f} ms")
    assert len(tasks) > 1000
    assert max(tasks) < 500


def test_at_a_model_s_pace_no_task_keeps_the_page_from_answering(
    tab: Page, browser: Browser, service: Service, token: str
) -> None:
    """60 tokens/s after 80 kB, in the main thread's processor time: the machine does other things too."""
    more = long_answer(800)
    pieces = [long_answer(20_000), *(more[at : at + 4] for at in range(0, len(more), 4))]
    chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    ask(tab, service, prompt_for(token, raw_chunks=chunks, pace_ms=16))
    wait_for_text(tab, 60_000)

    browser.start_tracing(page=tab, categories=["toplevel", "devtools.timeline"])
    # Asked seldom: the asking is a task of the page's too.
    grown = "length => [...document.querySelectorAll('.turn')].at(-1).textContent.length > length"
    shown = turn(tab).evaluate("turn => turn.textContent.length")
    tab.wait_for_function(grown, arg=shown + 500, polling=1000, timeout=60_000)
    trace = json.loads(browser.stop_tracing())["traceEvents"]

    calls = main_thread_milliseconds(trace, "FunctionCall")
    tasks = main_thread_milliseconds(trace, "ThreadControllerImpl::RunTask")
    print(f"{len(tasks)} tasks, longest {max(tasks):.1f} ms; of scripts alone {max(calls):.1f} ms")
    assert max(calls) < LONG_TASK_MS
    assert max(tasks) < LONG_TASK_MS
    expect_state(tab, "done", seconds=60)


def test_a_list_of_many_conversations_is_read_in_pages(
    new_context: Callable[..., BrowserContext], start_service: StartService, token: str
) -> None:
    service = start_service()
    tab = new_context().new_page()
    tab.goto(service.url)
    for number in range(55):
        made = tab.request.post(f"{service.url}/threads", data={"title": f"number {number}"})
        assert made.status == 201
    tab.reload()
    expect(listed(tab)).to_have_count(50)
    expect(listed(tab).first).to_have_text("number 54")

    tab.get_by_role("link", name="Show older ones").click()

    expect(listed(tab)).to_have_count(55)
    expect(listed(tab).last).to_have_text("number 0")
    expect(tab.get_by_role("link", name="Show older ones")).to_be_hidden()
