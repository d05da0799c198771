"""Every reader: by keyboard, by ear, on a phone, without scripts, in a long conversation."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.pages import (
    announced,
    answer,
    answer_of,
    answers,
    ask,
    expect_state,
    field,
    held,
    notice,
    prompt_for,
    send,
    slow,
    status,
    stop,
    thread_of,
    turn,
    wait_for_text,
)
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.upstream import contents

FRAMES = "(async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame); })()"
"""What the end of an answer brings with it has been laid out, and scrolled to, after so many."""

LEFT = "document.documentElement.scrollHeight - innerHeight - scrollY"
"""Pixels to the end."""
PLACE_OF_LAST_LINE = (
    "(window.lastLine ??= [...document.querySelectorAll('.turn:last-of-type .parts p')].at(-1))"
    ".getBoundingClientRect().top"
)
"""In the window: the browser scrolls too, to leave what is seen in its place while what is above it grows."""


# Without scripts


def test_the_page_works_without_javascript(
    plain_tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    script = held(token, tokens=40)
    plain_tab.goto(service.url)
    field(plain_tab).fill(prompt_for(token, **script))
    send(plain_tab).click()

    upstream.let(token, 10)
    expect(plain_tab.get_by_role("link", name="Look again now")).to_be_visible()
    upstream.let(token)
    expect_state(plain_tab, "done")

    assert answer_of(plain_tab).strip() == "".join(contents(script)).strip()
    assert len(upstream.log(token)) == 1
    field(plain_tab).fill(prompt_for(token, text="and more"))
    send(plain_tab).click()
    expect(plain_tab.locator(".turn")).to_have_count(2)
    expect_state(plain_tab, "done")
    assert answers(plain_tab)[1].strip() == "and more"


def test_without_javascript_one_can_stop_ask_again_and_edit(
    plain_tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    plain_tab.goto(service.url)
    field(plain_tab).fill(prompt_for(token, **slow(tokens=1000)))
    send(plain_tab).click()
    upstream.wait_for_request(token)

    plain_tab.get_by_role("button", name="Stop").click()
    expect_state(plain_tab, "stopped")
    expect(status(plain_tab)).to_contain_text("Stopped.")
    plain_tab.get_by_role("button", name="Try again").click()
    expect(turn(plain_tab).locator(".versions")).to_contain_text("2 / 2")
    plain_tab.get_by_role("button", name="Stop").click()
    expect_state(plain_tab, "stopped")

    turn(plain_tab).locator(".question").hover()
    plain_tab.get_by_role("link", name="Edit").click()
    field(plain_tab).fill(prompt_for(token, text="edited"))
    send(plain_tab).click()

    expect(turn(plain_tab).locator(".versions")).to_contain_text("3 / 3")
    expect_state(plain_tab, "done")
    assert answer_of(plain_tab).strip() == "edited"


def test_a_refused_question_is_kept_without_javascript(plain_tab: Page, service: Service) -> None:
    plain_tab.goto(service.url)
    field(plain_tab).fill("x" * 200_001)
    send(plain_tab).click()

    expect(notice(plain_tab)).to_have_text("Prompt: 200001 characters, at most 200000.")
    assert len(field(plain_tab).input_value()) == 200_001


# By keyboard


def test_the_keyboard_is_enough(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, "first\n" + prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 20)
    expect(field(tab)).to_be_focused()

    for _press in range(8):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "send":
            break
    expect(stop(tab)).to_be_focused()
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")

    expect_state(tab, "stopped")
    expect(send(tab)).to_be_focused()


def test_the_first_tab_leads_to_the_question(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text="text"))
    expect_state(tab, "done")
    tab.reload()

    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the question field")).to_be_focused()
    tab.keyboard.press("Enter")

    expect(field(tab)).to_be_focused()


def test_asking_again_does_not_lose_the_focus(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text="text"))
    expect_state(tab, "done")

    tab.get_by_role("button", name="Regenerate").press("Enter")
    expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")

    expect(field(tab)).to_be_focused()


# By ear


def test_a_screen_reader_is_told_of_states_and_not_of_every_token(
    tab: Page, service: Service, token: str
) -> None:
    tab.goto(service.url)
    assert tab.locator("html").get_attribute("lang") == "en"
    tab.evaluate(
        """() => {
            window.said = [];
            const line = document.querySelector("#announced");
            new MutationObserver(() => said.push(line.textContent)).observe(line, {childList: true});
        }"""
    )
    field(tab).fill(prompt_for(token, **slow()))
    send(tab).click()
    expect(answer(tab)).to_have_attribute("aria-busy", "true")
    expect_state(tab, "done")

    expect(answer(tab)).to_have_attribute("aria-busy", "false")
    assert tab.evaluate("said") == ["Asking", "Answer started", "Answer finished, 100 words."]
    live = "[...document.querySelectorAll('[aria-live]:not([aria-live=off]), [role=alert], [role=status]')]"
    assert tab.evaluate(f"{live}.every((region) => !region.closest('#conversation'))")
    for control in [*tab.get_by_role("button").all(), *tab.get_by_role("link").all()]:
        if control.is_visible():
            assert control.evaluate("each => each.ariaLabel || each.innerText.trim()")


def test_headings_lead_from_the_conversation_to_its_turns_and_into_answers(
    tab: Page, service: Service, token: str
) -> None:
    ask(tab, service, prompt_for(token, text="# Big\n\n## Smaller\n\ntext"))
    expect_state(tab, "done")

    levels = tab.locator("main :is(h1, h2, h3, h4, h5, h6)").evaluate_all(
        "all => all.filter((each) => each.checkVisibility()).map((each) => each.tagName)"
    )

    assert tab.get_by_role("heading", level=1).count() == 1
    assert levels == ["H2", "H2", "H3", "H4"]


# On any screen


@pytest.mark.parametrize("width", [320, 360, 390])
def test_a_narrow_screen_needs_no_sideways_scrolling(
    new_context: Callable[..., BrowserContext], service: Service, token: str, width: int
) -> None:
    tab = new_context(viewport={"width": width, "height": 640}).new_page()
    text = f"{'unbroken' * 80}\n\n| a | {'b' * 300} |\n|---|---|\n| 1 | 2 |\n\n```python\n{'x' * 300}\n```\n"
    ask(tab, service, f"{'long' * 60} {prompt_for(token, text=text, pieces=9)}")
    expect_state(tab, "done")

    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_phone_the_list_is_a_drawer(
    new_context: Callable[..., BrowserContext], service: Service, token: str
) -> None:
    tab = new_context(viewport={"width": 390, "height": 800}, has_touch=True).new_page()
    ask(tab, service, f"in the drawer {prompt_for(token, text='text')}")
    expect_state(tab, "done")
    thread = thread_of(tab)
    drawer = tab.get_by_role("navigation", name="Conversations")
    expect(drawer).to_be_hidden()

    tab.get_by_role("button", name="Conversations").tap()
    expect(drawer).to_be_visible()
    tab.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    tab.get_by_role("link", name="New conversation").tap()
    tab.get_by_role("button", name="Conversations").tap()
    drawer.get_by_role("link", name="in the drawer").first.tap()

    assert thread_of(tab) == thread
    expect(answer(tab)).to_have_text("text")


def test_what_is_pressed_is_large_enough(tab: Page, service: Service, token: str) -> None:
    ask(tab, service, prompt_for(token, text="```python\nx\n```"))
    expect_state(tab, "done")
    turn(tab).hover()

    boxes = tab.locator("button, a.action, summary, select").evaluate_all(
        """all => all.filter((each) => each.checkVisibility()).map((each) => {
            const { width, height } = each.getBoundingClientRect();
            return [each.textContent.trim() || each.ariaLabel, Math.round(width), Math.round(height)];
        })"""
    )

    assert len(boxes) > 6
    assert [box for box in boxes if box[1] < 24 or box[2] < 24] == []


def test_a_reader_who_scrolled_up_is_left_there_and_can_go_to_the_end(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    lines = "".join(f"line {i}\n\n" for i in range(300))
    ask(tab, service, prompt_for(token, text=lines, pieces=150, pace_ms=20, gate=token))
    upstream.let(token, 75)
    wait_for_text(tab, 800)
    # The page may be asked between two frames, when what came is not scrolled to yet.
    wait_until(lambda: tab.evaluate(LEFT) <= 64, PATIENCE_SECONDS, "the end is followed")

    def go_up() -> bool:
        # More than once, as people do: a turn that comes in the frame of a token may be cut short by it.
        tab.mouse.wheel(0, -100_000)
        return bool(tab.evaluate("scrollY") == 0)

    wait_until(go_up, PATIENCE_SECONDS, "the reader is at the top")
    upstream.let(token)
    expect_state(tab, "done")
    assert tab.evaluate("scrollY") == 0

    tab.get_by_role("button", name="To the end").click()
    wait_until(lambda: tab.evaluate(LEFT) <= 64, PATIENCE_SECONDS, "the reader is at the end")


def test_who_goes_up_slowly_is_not_taken_back_by_the_next_token(
    tab: Page, service: Service, token: str
) -> None:
    before = at_the_end_of_an_answer(tab, service, token)
    for _ in range(10):
        tab.evaluate("scrollBy(0, -10)")
        after = grown(tab, 5)

    assert abs(after - before - 100) < 5


@pytest.mark.parametrize("frame_ms", [0, 1000])
@pytest.mark.parametrize(
    "event", ["new WheelEvent('wheel', {deltaY: -100})", "new KeyboardEvent('keydown', {key: 'PageUp'})"]
)
def test_who_sets_off_to_go_up_is_not_held_by_the_token_of_that_frame(
    tab: Page, service: Service, token: str, event: str, frame_ms: int
) -> None:
    before = at_the_end_of_an_answer(tab, service, token)

    after = grown(tab, 400, f"dispatchEvent({event})", frame_ms)

    assert abs(after - before) < 5
    # They did not go: the end is followed again.
    wait_until(lambda: tab.evaluate(LEFT) <= 64, PATIENCE_SECONDS, "the end is followed")


def test_the_end_is_followed_although_the_page_grows_while_it_scrolls(
    tab: Page, service: Service, token: str
) -> None:
    at_the_end_of_an_answer(tab, service, token)
    tab.evaluate("scrollBy(0, -20)")

    # Before anybody hears of the scrolling.
    grown(tab, 400, "scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' })")

    assert tab.evaluate(LEFT) <= 64


def at_the_end_of_an_answer(tab: Page, service: Service, token: str) -> float:
    """Have a long answer, and be at its end; return where its last line is."""
    lines = "".join(f"line {i}\n\n" for i in range(60))
    ask(tab, service, prompt_for(token, text=lines))
    expect_state(tab, "done")
    wait_until(lambda: tab.evaluate(FRAMES) or tab.evaluate(LEFT) <= 1, PATIENCE_SECONDS, "it is at the end")
    return float(tab.evaluate(PLACE_OF_LAST_LINE))


def grown(tab: Page, pixels: int, before: str = "", frame_ms: int = 0) -> float:
    """Let the answer grow, in a frame with ``before`` that takes so long; return where the last line is."""
    place = tab.evaluate(
        f"""async () => {{
          {before};
          const block = document.createElement("p");
          block.style.height = "{pixels}px";
          document.querySelector(".turn:last-of-type").append(block);
          for (const late = performance.now() + {frame_ms}; performance.now() < late; );
          await {FRAMES};
          return {PLACE_OF_LAST_LINE};
        }}"""
    )
    return float(place)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_a_reader_who_wants_that(
    new_context: Callable[..., BrowserContext], service: Service, token: str, motion: str
) -> None:
    tab = new_context(reduced_motion=motion).new_page()
    ask(tab, service, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 20)

    moving = tab.evaluate("document.getAnimations().length")

    assert (moving > 0) == (motion == "no-preference")
    stop(tab).click()
    expect_state(tab, "stopped")


def test_the_page_says_that_the_demo_model_answers_and_how_to_change_that(
    tab: Page, demo: Service, service: Service
) -> None:
    tab.goto(demo.url)
    expect(tab.get_by_role("navigation")).to_contain_text("demo model: no AI, no key")
    expect(tab.get_by_role("navigation")).to_contain_text("set OPENAI_API_KEY and restart")

    tab.goto(service.url)
    expect(tab.get_by_role("navigation")).to_contain_text("Answers come from test-model")
    expect(announced(tab)).to_have_text("")
