"""What an answer is made of, live and after a reload: reasoning, tools, sources, states, questions."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import DEMO, StartService
from tests.browser.pages import (
    answer,
    answer_of,
    ask,
    ask_more,
    choose,
    expect_state,
    field,
    prompt_for,
    send,
    turn,
)
from tests.live.service import Service, request


def shown(tab: Page) -> str:
    """Return the markup of the parts, without what differs between two looks for a reason."""
    markup = answer(tab).evaluate(
        """parts => {
            const copy = parts.cloneNode(true);
            copy.querySelectorAll("template.source").forEach((each) => each.remove());
            // Coloured in idle time, which is not the same time.
            copy.querySelectorAll("code").forEach((each) => each.replaceChildren(each.textContent));
            return copy.innerHTML;
        }"""
    )
    markup = re.sub(r'(name="message_id" value=)"\w*"', r"\1", markup)
    return re.sub(r"\s+", " ", markup).replace("> <", "><").strip()


def test_reasoning_and_tool_calls_are_folded_also_after_a_reload(
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
        assert answer_of(tab) == "I looked."
        expect(tab.get_by_text("Let me think.")).to_be_hidden()
        tab.get_by_text("Reasoning", exact=True).click()
        expect(tab.get_by_text("Let me think.")).to_be_visible()
        tool = answer(tab).locator(".tool")
        expect(tool.locator("summary")).to_contain_text('Tool rain {"where":"<here>"}')
        tool.locator("summary").click()
        expect(tool.locator("pre").first).to_contain_text('"where": "<here>"')
        tab.reload()


@pytest.mark.parametrize(
    ("source", "question", "kinds"),
    [
        ("agent", "What is the weather in Paris?", ["tool", "text"]),
        ("docs", "How do I resume a stream?", ["sources", "text"]),
    ],
)
def test_what_is_shown_live_is_what_the_server_renders(
    tab: Page, examples: Service, source: str, question: str, kinds: list[str]
) -> None:
    tab.goto(examples.url)
    choose(tab, source)
    ask_more(tab, question)
    expect_state(tab, "done")
    live = shown(tab)

    tab.reload()

    assert (
        answer(tab)
        .locator(":scope > [data-part]")
        .evaluate_all("parts => parts.map((part) => part.dataset.part)")
        == kinds
    )
    assert shown(tab) == live
    expect(tab.get_by_label("Model or agent")).to_have_value(f"runnable:{source}")


def test_a_tool_s_call_and_its_result_are_one_part(tab: Page, examples: Service) -> None:
    tab.goto(examples.url)
    choose(tab, "agent")
    ask_more(tab, "What is the weather in Paris?")
    expect_state(tab, "done")

    tool = answer(tab).locator(".tool")
    expect(tool).to_have_count(1)
    expect(tool.locator("summary")).to_contain_text("get_weather")
    expect(tool.locator(".outcome")).to_have_text("done")
    tool.locator("summary").click()
    expect(tool.locator("[data-slot=result]")).to_contain_text("celsius")


def test_sources_are_numbered_and_have_their_snippets(tab: Page, examples: Service) -> None:
    tab.goto(examples.url)
    choose(tab, "docs")
    ask_more(tab, "How do I resume a stream?")
    expect_state(tab, "done")

    first = answer(tab).get_by_role("region", name="Sources").get_by_role("listitem").first
    expect(first).to_contain_text("Resuming")
    first.locator("summary").click()
    expect(first.locator("p")).to_contain_text("Last-Event-ID")


def test_a_graph_that_asks_a_person_is_answered_by_a_button(tab: Page, examples: Service) -> None:
    tab.goto(examples.url)
    choose(tab, "approval")
    ask_more(tab, "Invite Ana")
    expect_state(tab, "done")
    form = answer(tab).locator(".interrupt")
    expect(form).to_contain_text("Send this letter?")
    live = shown(tab)
    tab.reload()
    assert shown(tab) == live

    form.get_by_role("button", name="yes").click()
    expect(tab.locator(".turn")).to_have_count(2)
    expect_state(tab, "done")

    expect(answer(tab)).to_contain_text("The letter was sent.")
    assert turn(tab).locator(".bubble").text_content() == "yes"
    for _look in ("live", "reloaded"):
        first = turn(tab, 0).locator(".interrupt")
        expect(first.get_by_text("This was answered.")).to_be_visible()
        expect(first.get_by_role("button", name="yes")).to_be_hidden()
        tab.reload()


def test_a_graph_that_offers_choices_also_takes_other_words(tab: Page, examples: Service) -> None:
    tab.goto(examples.url)
    choose(tab, "approval")
    ask_more(tab, "Invite Ana")
    expect_state(tab, "done")
    form = answer(tab).locator(".interrupt")

    form.get_by_label("Or something else").fill("shorter, please")
    form.get_by_label("Or something else").press("Enter")
    expect(tab.locator(".turn")).to_have_count(2)
    expect_state(tab, "done")

    assert turn(tab).locator(".bubble").text_content() == "shorter, please"
    expect(answer(tab).locator(".interrupt")).to_contain_text("Send this letter?")


@pytest.fixture
def graphs(start_service: StartService, tmp_path: Path) -> Service:
    """A service with runnables of these tests."""
    named = "greeting=tests.browser.graphs:greeting,forecast=tests.browser.graphs:forecast"
    kept = {"RUNNABLES": named, "CHECKPOINTS_URL": f"sqlite:///{tmp_path / 'checkpoints.db'}"}
    return start_service(environment={**DEMO, **kept, "DEMO_TOKENS_PER_SECOND": "600"})


def test_a_graph_that_asks_without_choices_is_answered_in_words(tab: Page, graphs: Service) -> None:
    tab.goto(graphs.url)
    choose(tab, "greeting")
    ask_more(tab, "Greet me")
    expect_state(tab, "done")
    live = shown(tab)
    tab.reload()
    assert shown(tab) == live
    form = answer(tab).locator(".interrupt")
    expect(form).to_contain_text("What is your name?")

    form.get_by_label("Your answer").fill("Ana & <b>Bo</b>")
    form.get_by_label("Your answer").press("Enter")
    expect(tab.locator(".turn")).to_have_count(2)
    expect_state(tab, "done")

    assert answer_of(tab) == "Hello, Ana & <b>Bo</b>."
    expect(turn(tab, 0).get_by_text("This was answered.")).to_be_visible()


def test_a_result_that_was_cut_says_so(tab: Page, graphs: Service) -> None:
    tab.goto(graphs.url)
    choose(tab, "forecast")
    ask_more(tab, "What is the weather in Paris?")
    expect_state(tab, "done")

    for _look in ("live", "reloaded"):
        tool = answer(tab).locator(".tool")
        tool.locator("summary").click()
        expect(tool.locator("[data-slot=result]")).to_contain_text("Paris: sun")
        expect(tool.get_by_text("Only its beginning is kept.")).to_be_visible()
        tab.reload()


def test_what_a_graph_s_nodes_changed_is_folded(tab: Page, examples: Service) -> None:
    asked = {"source": "agent", "thread": "states", "mode": "updates"}
    question = "What is the weather in Paris?"
    made = request(
        examples.port, "POST", "/streams", asked | {"prompt": question, "on_disconnect": "continue"}
    )
    stream_id = made.json()["stream_id"]

    tab.goto(f"{examples.url}/?thread=states")
    expect_state(tab, "done")
    live = shown(tab)
    tab.reload()

    assert shown(tab) == live
    assert examples.snapshot(stream_id)["state"] == "completed"
    update = answer(tab).locator("[data-part=state]").first
    expect(update.locator("pre")).to_be_hidden()
    update.locator("summary").click()
    expect(update.locator("summary")).to_contain_text("updates")
    expect(update.locator("pre")).to_contain_text("get_weather")


@pytest.mark.parametrize(("said", "told"), [("no", "Nothing was sent."), ("shorter", "Send this letter?")])
def test_a_graph_is_answered_without_javascript(
    new_context: Callable[..., BrowserContext], examples: Service, said: str, told: str
) -> None:
    tab = new_context(java_script_enabled=False).new_page()
    tab.goto(examples.url)
    choose(tab, "approval")
    field(tab).fill("Invite Ana")
    send(tab).click()
    expect(tab.get_by_role("button", name="no")).to_be_visible()

    if said == "no":
        tab.get_by_role("button", name="no").click()
    else:
        tab.get_by_label("Or something else").fill(said)
        tab.get_by_label("Or something else").press("Enter")

    expect(tab.locator(".turn")).to_have_count(2)
    expect(turn(tab).locator(".bubble")).to_have_text(said)
    expect(answer(tab).get_by_text(told)).to_be_visible()


@pytest.mark.parametrize("scripted", [True, False], ids=["with scripts", "without"])
def test_a_runnable_is_chosen_answers_and_stays_chosen(
    new_context: Callable[..., BrowserContext], examples: Service, scripted: bool
) -> None:
    tab = new_context(java_script_enabled=scripted).new_page()
    tab.goto(examples.url)
    choose(tab, "agent")
    field(tab).fill("What is the weather in Paris?")
    send(tab).click()

    expect(answer(tab).get_by_text("celsius").first).to_be_attached()
    expect(turn(tab).locator("[data-slot=model]")).to_have_text("agent")
    expect_state(tab, "done")
    expect(tab.get_by_label("Model or agent")).to_have_value("runnable:agent")


def test_a_suggestion_is_asked_with_one_click(tab: Page, examples: Service) -> None:
    tab.goto(examples.url)

    tab.get_by_role("button", name="What is the weather in Lisbon?").click()

    expect_state(tab, "done")
    expect(answer(tab)).to_contain_text("celsius")
