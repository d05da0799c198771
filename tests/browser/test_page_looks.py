"""What the page looks like: screenshots that are kept as artefacts, and axe's findings in each state."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.pages import (
    answer,
    ask,
    ask_and_wait,
    ask_more,
    choose,
    expect_state,
    field,
    notice,
    picture,
    prompt_for,
    slow,
    stop,
    turn,
    wait_for_text,
)
from tests.live.service import Service, Upstream

ROOT = Path(__file__).parents[2]
AXE = ROOT / "tests/clients_node/node_modules/axe-core/axe.min.js"
FIGURE = ROOT / "docs/screenshot.png"
FIGURE_BYTES = 200_000
SCREENS = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
    "phone-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True},
}
LONG_ENOUGH = """\
To resume a stream, send the **cursor** of the last event you saw. Nothing is lost, nothing comes twice.

```python
import httpx

with httpx.stream("GET", url, headers={"Last-Event-ID": "1.42"}) as answer:
    for line in answer.iter_lines():
        print(line)  # goes on after event 42
```

| cursor | answer |
| --- | --- |
| absent | from the first event |
| the last event | `204`, and the client stops |

1. Keep the id of each event.
2. Ask again with it: [the specification](https://html.spec.whatwg.org/) has the details.
"""

Findings = list[str]


@pytest.fixture(params=list(SCREENS))
def screen(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_screen(new_context: Callable[..., BrowserContext]) -> Callable[[str], Page]:
    """Open a tab on one of the screens; axe may be put into it past the page's policy."""

    def open_tab(screen: str) -> Page:
        return new_context(**SCREENS[screen], bypass_csp=True).new_page()

    return open_tab


def look(tab: Page, name: str) -> None:
    """Keep a picture, and fail for what axe finds serious."""
    picture(tab, name)
    assert serious(tab) == [], name


def serious(tab: Page) -> Findings:
    """Return what axe finds serious or critical: which rule, and where."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(AXE.read_text())
    found: dict[str, Any] = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_axe_would_find_what_is_wrong(open_screen: Callable[[str], Page], service: Service) -> None:
    tab = open_screen("light")
    tab.goto(service.url)

    tab.evaluate("document.querySelector('#intro h2').style.color = '#ddd'")

    assert any("color-contrast" in finding for finding in serious(tab))


def test_the_empty_page(open_screen: Callable[[str], Page], examples: Service, screen: str) -> None:
    tab = open_screen(screen)
    tab.goto(examples.url)
    expect(tab.get_by_role("heading", name="Ask a question")).to_be_visible()

    look(tab, f"empty-{screen}")


def test_an_answer_that_runs_and_is_finished(
    open_screen: Callable[[str], Page], service: Service, upstream: Upstream, token: str, screen: str
) -> None:
    tab = open_screen(screen)
    script = {"text": LONG_ENOUGH, "pieces": 120, "gate": token}
    ask(tab, service, f"How do I resume? {prompt_for(token, **script)}")
    upstream.let(token, 60)
    wait_for_text(tab, 150)
    look(tab, f"running-{screen}")
    upstream.let(token)
    expect_state(tab, "done")
    expect(answer(tab).locator(".hljs-keyword").first).to_be_visible()
    tab.get_by_role("switch", name="Metrics").click()
    turn(tab).hover()
    look(tab, f"finished-{screen}")
    tab.reload()
    expect(answer(tab).locator(".hljs-keyword").first).to_be_visible()
    look(tab, f"reloaded-{screen}")


def test_tools_sources_and_a_graph_that_asks(
    open_screen: Callable[[str], Page],
    examples: Service,
    screen: str,
) -> None:
    tab = open_screen(screen)
    tab.goto(examples.url)
    for source, question in (
        ("agent", "What is the weather in Prague?"),
        ("docs", "How do I resume a stream?"),
        ("approval", "Invite Ana"),
    ):
        choose(tab, source)
        ask_and_wait(tab, question)
        if source != "approval":
            answer(tab).locator("summary").first.click()
        look(tab, f"{source}-{screen}")


def test_what_went_wrong(
    open_screen: Callable[[str], Page], service: Service, token: str, screen: str
) -> None:
    tab = open_screen(screen)
    ask(tab, service, prompt_for(token, play="cut", after=3, tokens=6, pace_ms=20))
    expect_state(tab, "error")
    look(tab, f"error-{screen}")
    field(tab).fill("x" * 200_001)
    field(tab).press("Enter")
    expect(notice(tab)).to_be_visible()
    field(tab).evaluate("field => field.value = 'x'.repeat(400)")
    look(tab, f"refused-{screen}")
    field(tab).fill("")
    tab.get_by_role("button", name="Try again").click()
    expect(turn(tab).locator(".versions")).to_contain_text("2 / 2")
    expect_state(tab, "error")
    ask_more(tab, prompt_for(token, **slow(tokens=1000)))
    wait_for_text(tab, 30)
    stop(tab).click()
    expect_state(tab, "stopped")
    look(tab, f"stopped-{screen}")


def test_the_dialog_the_drawer_and_the_instructions(
    open_screen: Callable[[str], Page], service: Service, token: str, screen: str
) -> None:
    tab = open_screen(screen)
    ask(tab, service, f"A conversation {prompt_for(token, text='text')}")
    expect_state(tab, "done")
    tab.get_by_text("Instructions", exact=True).locator("..").click()
    expect(tab.get_by_label("System instructions")).to_be_visible()
    look(tab, f"instructions-{screen}")
    tab.keyboard.press("Escape")
    turn(tab).locator(".question").hover()
    turn(tab).get_by_role("link", name="Edit").click()
    look(tab, f"editing-{screen}")
    tab.get_by_role("link", name="Cancel").click()
    if screen.startswith("phone"):
        tab.get_by_role("button", name="Conversations").click()
        look(tab, f"drawer-{screen}")
        tab.keyboard.press("Escape")
    tab.get_by_role("link", name="Rename or delete this conversation").click()
    expect(tab.get_by_role("dialog")).to_be_visible()
    look(tab, f"dialog-{screen}")


def test_system_colours_are_enough(
    new_context: Callable[..., BrowserContext], service: Service, token: str
) -> None:
    tab = new_context(forced_colors="active").new_page()
    ask(tab, service, prompt_for(token, text=LONG_ENOUGH))
    expect_state(tab, "done")

    border = tab.locator(".bubble").evaluate("each => getComputedStyle(each).borderTopStyle")

    picture(tab, "forced-colors")
    assert border == "solid"


@pytest.fixture
def conversation(
    new_context: Callable[..., BrowserContext],
    examples: Service,
) -> Page:
    """The page with some conversations, as the figure of the README shows it."""
    tab = new_context(viewport={"width": 1280, "height": 800}, color_scheme="light").new_page()
    for source, question in (
        ("docs", "How do I resume a stream?"),
        ("approval", "Invite Ana to lunch"),
        ("agent", "What is the weather in Lisbon?"),
    ):
        tab.goto(examples.url)
        choose(tab, source)
        ask_and_wait(tab, question)
    return tab


def test_the_figure_of_the_readme_can_be_made(conversation: Page) -> None:
    """Written only when asked: SCREENSHOT=1 python -m pytest tests/browser -k figure."""
    tab = conversation
    choose(tab, "demo")
    ask_and_wait(tab, "How did this answer get here?")
    tab.evaluate("document.activeElement.blur()")
    expect(answer(tab).locator(".hljs-keyword").first).to_be_attached()
    tab.evaluate(
        """() => {
            const { bottom } = [...document.querySelectorAll(".code")].at(-1).getBoundingClientRect();
            scrollBy(0, bottom + 24 - document.querySelector("#ask").getBoundingClientRect().top);
        }"""
    )

    shot = tab.screenshot(animations="disabled")

    assert len(shot) < FIGURE_BYTES
    if os.environ.get("SCREENSHOT"):
        FIGURE.write_bytes(shot)
    assert FIGURE.exists()
    assert f"({FIGURE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
