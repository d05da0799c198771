"""Where one asks: text, images, instructions, metrics."""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.pages import (
    announced,
    answer,
    ask,
    ask_more,
    expect_state,
    field,
    held,
    notice,
    prompt_for,
    questions,
    send,
    turn,
    wait_for_text,
)
from tests.live.service import Service, Upstream

DRAW = """([width, height, type]) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.fillStyle = "teal";
    context.fillRect(0, 0, width, height / 2);
    return canvas.toDataURL(type).split(",")[1];
}"""


def image(tab: Page, width: int, height: int, kind: str = "image/png") -> bytes:
    """Return an image that the browser drew."""
    return base64.b64decode(tab.evaluate(DRAW, [width, height, kind]))


def attach(tab: Page, *files: dict[str, Any]) -> None:
    tab.locator("#image-files").set_input_files(list(files))


def png(tab: Page, width: int = 40, height: int = 30, name: str = "small.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": image(tab, width, height)}


def previews(tab: Page) -> Locator:
    return tab.get_by_role("list", name="Images to send").get_by_role("img")


def sent_images(upstream: Upstream, token: str) -> list[str]:
    content = upstream.log(token)[-1]["body"]["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def size_of(tab: Page, url: str) -> list[int]:
    return tab.evaluate(
        """async (url) => {
            const image = new Image();
            image.src = url;
            await image.decode();
            return [image.naturalWidth, image.naturalHeight];
        }""",
        url,
    )


def test_an_image_is_sent_shown_and_still_there_after_a_reload(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(service.url)
    attach(tab, png(tab))
    expect(previews(tab)).to_have_count(1)

    ask_more(tab, prompt_for(token, text="a small one"))
    expect_state(tab, "done")

    expect(previews(tab)).to_have_count(0)
    (url,) = sent_images(upstream, token)
    assert url.startswith("data:image/png;base64,")
    assert size_of(tab, url) == [40, 30]
    for _look in ("live", "reloaded"):
        expect(turn(tab).get_by_role("img", name="An image you sent")).to_be_visible()
        tab.reload()


def test_a_large_image_is_made_smaller_before_it_is_sent(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(service.url)
    attach(tab, png(tab, 4000, 1000))
    expect(previews(tab)).to_have_count(1)

    ask_more(tab, prompt_for(token))
    expect_state(tab, "done")

    (url,) = sent_images(upstream, token)
    assert url.startswith("data:image/jpeg;base64,")
    assert size_of(tab, url) == [1568, 392]


def test_an_image_alone_is_a_question(tab: Page, demo: Service) -> None:
    tab.goto(demo.url)
    attach(tab, png(tab))
    expect(previews(tab)).to_have_count(1)

    send(tab).click()

    expect_state(tab, "done")
    expect(answer(tab)).to_contain_text("I received 1 image")
    expect(answer(tab)).to_contain_text("40")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_an_image_is_pasted_or_dropped(tab: Page, service: Service, way: str) -> None:
    tab.goto(service.url)
    give = """([bytes, way]) => {
        const data = new DataTransfer();
        const raw = Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0));
        data.items.add(new File([raw], "x.png", { type: "image/png" }));
        const event = way === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
            : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector(way === "paste" ? "#prompt" : "main").dispatchEvent(event);
        return event.defaultPrevented;
    }"""

    prevented = tab.evaluate(give, [base64.b64encode(image(tab, 10, 10)).decode(), way])

    assert prevented
    expect(previews(tab)).to_have_count(1)


def test_images_are_taken_away_by_keyboard_and_the_focus_stays_near(tab: Page, service: Service) -> None:
    tab.goto(service.url)
    attach(tab, png(tab, name="a.png"), png(tab, name="b.png"))
    expect(previews(tab)).to_have_count(2)

    tab.get_by_role("button", name="Remove a.png").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Remove b.png")).to_be_focused()
    tab.keyboard.press("Enter")

    expect(previews(tab)).to_have_count(0)
    expect(field(tab)).to_be_focused()


def test_a_file_that_is_no_image_is_refused_by_its_name(tab: Page, service: Service) -> None:
    tab.goto(service.url)

    attach(tab, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"})

    expect(notice(tab)).to_have_text("notes.txt is not an image this browser can read.")
    expect(previews(tab)).to_have_count(0)


def test_an_edited_question_brings_its_images_back(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    tab.goto(service.url)
    attach(tab, png(tab))
    expect(previews(tab)).to_have_count(1)
    ask_more(tab, prompt_for(token))
    expect_state(tab, "done")
    turn(tab).locator(".question").hover()
    tab.get_by_role("link", name="Edit").click()
    expect(previews(tab)).to_have_count(1)

    send(tab).click()
    expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")
    expect_state(tab, "done")

    assert len(sent_images(upstream, token)) == 1
    assert len(upstream.log(token)) == 2


# Instructions


@pytest.mark.parametrize("scripted", [True, False], ids=["with scripts", "without"])
def test_system_instructions_are_sent_and_kept_for_the_next_question(
    new_context: Callable[..., BrowserContext],
    service: Service,
    upstream: Upstream,
    token: str,
    scripted: bool,
) -> None:
    tab = new_context(java_script_enabled=scripted).new_page()
    tab.goto(service.url)
    tab.get_by_text("Instructions", exact=True).click()
    tab.get_by_label("System instructions").fill("Answer in rhymes.")
    field(tab).fill(prompt_for(token))
    send(tab).click()
    expect_state(tab, "done")

    assert upstream.log(token)[-1]["body"]["messages"][0] == {
        "role": "system",
        "content": "Answer in rhymes.",
    }
    tab.reload()
    expect(tab.get_by_label("System instructions")).to_have_value("Answer in rhymes.")


def test_the_instructions_fold_by_a_click_beside_them_and_by_escape(tab: Page, service: Service) -> None:
    tab.goto(service.url)
    instructions = tab.get_by_label("System instructions")

    tab.get_by_text("Instructions", exact=True).click()
    expect(instructions).to_be_visible()
    tab.get_by_role("heading", name="Ask a question").click()
    expect(instructions).to_be_hidden()
    tab.get_by_text("Instructions", exact=True).click()
    instructions.focus()
    tab.keyboard.press("Escape")

    expect(instructions).to_be_hidden()
    expect(tab.locator("#instructions summary")).to_be_focused()


# Metrics


def test_metrics_are_switched_on_and_stay_on(
    tab: Page, service: Service, upstream: Upstream, token: str
) -> None:
    ask(tab, service, prompt_for(token, **held(token, tokens=150, pace_ms=40)))
    upstream.let(token, 20)
    wait_for_text(tab, 20)
    numbers = turn(tab).locator(".numbers")
    expect(numbers).to_be_hidden()
    switch = tab.get_by_role("switch", name="Metrics")
    expect(switch).not_to_be_checked()

    switch.click()
    upstream.let(token, 100)  # numbers come with tokens, a few times a second

    expect(switch).to_be_checked()
    expect(numbers).to_have_text(
        re.compile(r"\d+ tokens · \d+\.\d s · \d+\.\d tokens/s · first after \d+ ms")
    )
    expect(numbers).to_contain_text("100 tokens")
    early = numbers.text_content()
    expect(numbers).not_to_have_text(early or "")  # time goes on while the model is silent
    expect(numbers).to_contain_text("100 tokens")
    upstream.let(token)
    expect_state(tab, "done")
    last = numbers.text_content() or ""
    assert last.startswith("150 tokens · ")
    assert "first after" in last
    tab.reload()
    expect(numbers).to_be_visible()
    assert numbers.text_content() == last


# The field


def test_shift_enter_starts_a_line(tab: Page, demo: Service) -> None:
    tab.goto(demo.url)
    expect(field(tab)).to_be_focused()
    tab.keyboard.type("one")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("two")
    tab.keyboard.press("Enter")

    expect_state(tab, "done")
    assert questions(tab) == ["one\ntwo"]


def test_enter_that_ends_a_composition_does_not_send(tab: Page, service: Service) -> None:
    tab.goto(service.url)
    field(tab).fill("にほん")

    field(tab).dispatch_event("keydown", {"key": "Enter", "isComposing": True})

    assert tab.locator(".turn").count() == 0
    expect(announced(tab)).to_have_text("")


@pytest.mark.parametrize("sized", [True, False], ids=["by the browser", "by the script"])
def test_the_field_grows_with_its_text_up_to_a_limit(tab: Page, service: Service, sized: bool) -> None:
    if not sized:
        tab.add_init_script("CSS.supports = () => false")
    tab.goto(service.url)
    if not sized:
        tab.evaluate("document.querySelector('#prompt').style.fieldSizing = 'fixed'")
    height = "document.querySelector('#prompt').offsetHeight"
    small = tab.evaluate(height)

    field(tab).fill("line\n" * 5)
    grown = tab.evaluate(height)
    field(tab).fill("line\n" * 500)

    assert small < grown < tab.evaluate(height) <= tab.evaluate("innerHeight") * 0.45
