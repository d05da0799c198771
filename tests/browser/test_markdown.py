"""Markdown while it grows: the same as the server's, cheap, steady, and harmless."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from streaming.web._markdown import render
from tests.browser.conftest import LAN_HOST
from tests.browser.markdown_page.corpus import TEXTS, long_answer, pieces_of, random_text
from tests.browser.markdown_page.payloads import payloads
from tests.browser.markdown_page.server import STATIC, MarkdownPage
from tests.browser.pages import LONG_SECONDS

LONG_TASK_MS = 50


@pytest.fixture(scope="module")
def markdown_page() -> Iterator[MarkdownPage]:
    page = MarkdownPage()
    yield page
    page.stop()


@pytest.fixture
def page(tab: Page, markdown_page: MarkdownPage) -> Page:
    """A tab with nothing in it but what shows Markdown."""
    return opened(tab, markdown_page.url)


def opened(tab: Page, url: str) -> Page:
    tab.goto(url)
    tab.wait_for_function("window.tests?.ready")
    return tab


def start_view(page: Page, text: str) -> None:
    """Begin a view in the page's answer with ``text``; `more` goes on with it."""
    page.evaluate(
        "window.view?.clear(); window.answer = tests.answer; window.view = new tests.MarkdownView(answer)"
    )
    more(page, text)


def more(page: Page, text: str) -> None:
    page.evaluate("text => { view.append(text); view.flush() }", text)


# The same everywhere


@pytest.mark.parametrize("kind", ["written", "random"])
def test_streamed_in_any_pieces_at_once_and_by_the_server_are_the_same(page: Page, kind: str) -> None:
    texts = TEXTS if kind == "written" else [random_text(seed) for seed in range(250)]

    for seed, text in enumerate(texts):
        whole = page.evaluate("text => tests.whole(text)", text)
        assert page.evaluate("html => tests.server(html)", str(render(text))) == whole, text
        cuts = [list(text), pieces_of(text, seed), pieces_of(text, -seed)] if len(text) < 2000 else [[text]]
        for pieces in cuts:
            assert page.evaluate("pieces => tests.streamed(pieces)", pieces) == whole, pieces


def test_a_long_answer_streamed_is_the_server_s(page: Page) -> None:
    tokens = long_answer(6000)
    streamed = page.evaluate("pieces => tests.streamed(pieces)", tokens)

    assert streamed == page.evaluate("html => tests.server(html)", str(render("".join(tokens))))


# While it grows

UNFINISHED = [
    ("say **bold te", "say bold te"),
    ("say **bold*", "say bold"),
    ("say *em **both", "say em both"),
    ("run `npm in", "run npm in"),
    ("run ``a`b`", "run a`b"),
    ("see [the docs](https://exam", "see the docs"),
    ("see [the do", "see the do"),
    ("see [the docs]", "see the docs"),
    ("see ![a cat](https://exam", "see a cat"),
    ("a **", "a"),
    ("a `", "a"),
    ("~~gone", "gone"),
    ("so \\(x_1", "so \\(x_1\\)"),
    ("fish &am", "fish"),
    ("text\n-", "text"),
    ("text\n==", "text"),
    ("text\n```py", "text"),
    ("```py\ncode\n``", "pyCopycode\n"),
    ("text\n\n| a | b |\n|--", "text"),
    ("- one\n- ", "one"),
    ("1. one\n2", "one"),
    ("2 * 3 and snake_case_name", "2 * 3 and snake_case_name"),
    ("- [x] done", "[x] done"),
]


@pytest.mark.parametrize(("text", "shown"), UNFINISHED)
def test_marks_that_are_only_begun_are_not_seen(page: Page, text: str, shown: str) -> None:
    start_view(page, text)

    assert page.locator("#answer").text_content() == shown


def test_what_was_held_back_is_shown_when_nothing_more_comes(page: Page) -> None:
    for text in ("a **", "see [the docs](https://exam", "1. one\n2", "| a |", "``", "fish &am"):
        start_view(page, text)
        page.evaluate("view.finish()")
        whole = page.evaluate("text => tests.whole(text)", text)
        assert page.evaluate("tests.normalForm(answer)") == whole
        page.evaluate("view.clear()")


def test_closed_blocks_items_and_rows_stay_the_nodes_they_are(page: Page) -> None:
    start_view(page, "first *one*\n\n- item a\n- item b\n- item c\n")
    page.evaluate("""() => {
        window.kept = [...document.querySelectorAll("#answer > p, #answer li:not(:last-child)")];
        getSelection().selectAllChildren(kept[0]);
    }""")

    more(page, "- item d\n\nmore\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n")
    page.evaluate("kept.push(document.querySelector('#answer td'))")
    more(page, "| 5 | 6 |\n\n```js\nlet a;\n```\n\nend [later]\n\n")
    more(page, "[later]: https://later.example\n")
    page.evaluate("view.finish()")

    assert page.evaluate("kept.every((node) => node.isConnected)")
    assert page.evaluate("kept.length") == 4
    assert page.evaluate("String(getSelection())").strip() == "first one"
    expect(page.locator("#answer a")).to_have_text("later")
    assert page.locator("#answer li").count() == 4


def test_the_focus_and_the_selection_stay_in_a_block_that_grows(page: Page) -> None:
    start_view(page, "go to [the place](https://place.example) and ")
    page.locator("#answer a").focus()
    page.evaluate(
        "getSelection().setBaseAndExtent(answer.firstChild.firstChild, 0, answer.firstChild.firstChild, 5)"
    )

    for word in ("then **come", " back** ", "`soon`", "\n- and bring"):
        more(page, word)

    expect(page.locator("#answer a")).to_be_focused()
    assert page.evaluate("String(getSelection())") == "go to"


def test_a_definition_that_comes_later_makes_links_of_what_was_text(page: Page) -> None:
    start_view(page, "read [this][1] and [that]\n\n- also [this][1]\n- more\n- yet more\n\nend\n")
    expect(page.locator("#answer a")).to_have_count(0)
    page.evaluate("window.kept = [...answer.children]")

    more(page, "\n[1]: https://one.example\n[that]: https://two.example\n\nafter\n\nit\n")

    expect(page.locator("#answer a")).to_have_text(["this", "that", "this"])
    assert page.evaluate("kept.every((node) => node.isConnected)")


def test_the_server_s_part_is_taken_over_and_gone_on_with(page: Page) -> None:
    tokens = long_answer(4000)
    before, after = "".join(tokens[:2500]), "".join(tokens[2500:])
    page.evaluate(
        """([html, text]) => {
            answer.append(...tests.parsed(html).childNodes);
            window.first = answer.querySelector("p");
            getSelection().selectAllChildren(first);
            window.view = new tests.MarkdownView(answer);
            view.resume(text);
            view.append(" and ");
        }""",
        [str(render(before)), before],
    )
    page.evaluate("text => { view.append(text); view.finish() }", after)

    assert page.evaluate("first.isConnected && String(getSelection()).trim() === first.innerText.trim()")
    text = f"{before} and {after}"
    assert page.evaluate("view.text") == text
    assert page.evaluate("tests.normalForm(answer)") == page.evaluate("text => tests.whole(text)", text)


def test_a_part_taken_over_little_by_little_is_the_same(page: Page) -> None:
    before = "".join(long_answer(5000)) + "\n```js\nlet open = `"
    page.evaluate(
        """([html, text]) => {
            answer.append(...tests.parsed(html).childNodes);
            window.view = new tests.MarkdownView(answer);
            view.resume(text);
        }""",
        [str(render(before)), before],
    )
    page.evaluate("view.append('more`;\\n```\\n\\nend **now**')")
    expect(page.locator("#answer > p").last).to_have_text("end now")
    page.evaluate("view.finish()")

    text = before + "more`;\n```\n\nend **now**"
    assert page.evaluate("tests.normalForm(answer)") == page.evaluate("text => tests.whole(text)", text)


# Code


def test_code_is_coloured_while_it_is_written_and_its_text_is_exact(page: Page) -> None:
    lines = [f"const a{i} = `x ${{b(`${{{i}}}`)}} y`;\n" for i in range(400)]
    lines[::9] = [f"{line}/* over\ntwo lines */\n" for line in lines[::9]]
    code = "".join(lines)
    start_view(page, "```js\n")
    for at in range(0, len(code), 900):
        more(page, code[at : at + 900])
    expect(page.locator("#answer .hljs-keyword").first).to_have_text("const")
    more(page, "```\n\nend")

    assert page.locator("#answer code").text_content() == code
    expect(page.locator("#answer .hljs-keyword")).to_have_count(400, timeout=LONG_SECONDS * 1000)
    expect(page.locator("#answer .hljs-comment")).to_have_count(45)
    assert page.locator("#answer .lines").count() > 5


@pytest.mark.parametrize("host", ["127.0.0.1", LAN_HOST])
def test_the_button_copies_the_code_exactly_also_over_plain_http(
    new_context: Callable[..., BrowserContext], markdown_page: MarkdownPage, host: str
) -> None:
    context = new_context(permissions=["clipboard-read", "clipboard-write"])
    page = opened(context.new_page(), markdown_page.url.replace("127.0.0.1", host))
    code = "if a < b:\n\treturn  'x'\n\n"
    start_view(page, f"```python\n{code}```\n")
    page.evaluate("view.finish()")
    button = page.get_by_role("button", name="Copy code")

    button.focus()
    page.keyboard.press("Enter")

    expect(button).to_have_text("Copied")
    expect(page.get_by_role("status")).to_have_text("Copied")
    expect(button).to_be_focused()
    expect(button).to_have_text("Copy")
    expect(page.get_by_role("status")).to_have_text("")
    page.evaluate("""() => {
        const field = document.createElement("textarea");
        field.id = "pasted";
        document.body.append(field);
        field.focus();
    }""")
    page.keyboard.press("Control+V")
    assert page.evaluate("document.getElementById('pasted').value") == code


def test_nothing_in_an_answer_keeps_anybody_out(
    page: Page, new_context: Callable[..., BrowserContext]
) -> None:
    axe = (STATIC.parent / "tests/clients_node/node_modules/axe-core/axe.min.js").read_text()
    dark = opened(
        new_context(color_scheme="dark", viewport={"width": 390, "height": 800}).new_page(), page.url
    )
    for each in (page, dark):
        start_view(each, "".join(text for text in TEXTS if len(text) < 400) + "".join(long_answer(700)))
        each.evaluate("view.finish()")
        expect(each.locator("#answer .hljs-keyword").first).to_be_visible()
        each.evaluate(f"{axe}; true")

        violations = each.evaluate("axe.run('#answer').then(({ violations }) => violations)")

        serious = [found for found in violations if found["impact"] in ("serious", "critical")]
        assert not serious, [(found["id"], found["nodes"][0]["html"]) for found in serious]


# Cost


def busy_seconds(page: Page, work: Callable[[], Any]) -> float:
    """Return the processor time the page's main thread took for ``work``, whatever else the machine does."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    before = spent()
    work()
    seconds = spent() - before
    session.detach()
    return seconds


def test_twice_the_tokens_cost_twice_the_time(page: Page) -> None:
    page.evaluate("tokens => tests.timed(tokens)", long_answer(2000))
    seconds = {}
    for tokens in (5_000, 40_000):
        answer = long_answer(tokens)
        seconds[tokens] = busy_seconds(
            page, lambda answer=answer: page.evaluate("t => tests.timed(t)", answer)
        )
    print(
        "seconds of the main thread by tokens:",
        {tokens: round(spent, 2) for tokens, spent in seconds.items()},
    )

    per_token = {tokens: spent / tokens for tokens, spent in seconds.items()}
    assert per_token[40_000] < 2 * per_token[5_000], seconds
    # A frame has 16 ms; this is all of what a token's frame takes.
    assert per_token[40_000] < 0.004, seconds


@pytest.mark.parametrize(
    "unit",
    ["const a = `x`; // of code\n", "- item **b** `c`\n", "| 1 | **b** |\n", "text *em* here\n\n"],
    ids=["code", "list", "table", "paragraphs"],
)
def test_one_long_block_costs_no_more_for_each_line(page: Page, unit: str) -> None:
    head = {"c": "```js\n", "|": "| a | b |\n|---|---|\n"}.get(unit[0], "")
    page.evaluate("tokens => tests.timed(tokens)", [head, *[unit] * 200])

    def shown(lines: int) -> None:
        page.evaluate("tokens => tests.timed(tokens)", [head, *[unit] * lines])
        if head.startswith("```"):
            # Colouring goes on in idle time: it is part of the cost, however few the lines are.
            coloured = "lines => document.querySelectorAll('#answer .hljs-comment').length >= lines"
            page.wait_for_function(coloured, arg=lines, polling=250)

    short = busy_seconds(page, lambda: shown(500))
    long = busy_seconds(page, lambda: shown(4000))
    print("seconds of the main thread for 500 and 4,000 lines:", short, long)

    assert long < 8 * 2 * short, (short, long)


def test_at_the_end_of_20_000_tokens_no_task_takes_50_ms(page: Page, browser: Browser) -> None:
    tokens = long_answer(20_000)
    # The first time, the browser compiles what the second time is there.
    page.evaluate("text => tests.prepare(text)", "".join(tokens[:19_400]))
    page.evaluate("tokens => tests.stream(tokens, 600)", tokens[:300])
    page.evaluate("text => tests.prepare(text)", "".join(tokens[:19_400]))
    page.wait_for_timeout(500)

    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    page.evaluate("tokens => tests.stream(tokens, 60)", tokens[19_400:])
    trace = json.loads(browser.stop_tracing())["traceEvents"]

    tasks = main_thread_milliseconds(trace, "RunTask") or main_thread_milliseconds(
        trace, "ThreadControllerImpl::RunTask"
    )
    calls = main_thread_milliseconds(trace, "FunctionCall")
    print(f"tasks: {len(tasks)}, longest {max(tasks):.1f} ms; of scripts alone {max(calls):.1f} ms")
    assert len(tasks) > 500
    assert max(calls) < LONG_TASK_MS
    assert sum(task > LONG_TASK_MS for task in tasks) == 0, sorted(tasks)[-5:]


def main_thread_milliseconds(trace: list[dict[str, Any]], name: str) -> list[float]:
    """Return the processor time of each such event in the page's main thread."""
    threads = Counter((event["pid"], event["tid"]) for event in trace if event["name"] == "FunctionCall")
    main = threads.most_common(1)[0][0]
    found = [event for event in trace if event["name"] == name and (event["pid"], event["tid"]) == main]
    return [event["tdur"] / 1000 for event in found if "tdur" in event]


# Harm


def test_no_payload_runs_or_asks_anybody_however_it_is_cut(
    browser: Browser, markdown_page: MarkdownPage
) -> None:
    dialogs: list[str] = []
    requests: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    context.on("request", lambda request: requests.append(request.url))
    context.add_init_script("window.boom = () => { window.executed++ }")
    opened(page, markdown_page.url)
    page.wait_for_load_state("networkidle")
    asked = len(markdown_page.asked)
    requests.clear()
    attacks = payloads()
    began = time.monotonic()

    found = {attack: what for attack in attacks if (what := page.evaluate("t => tests.attacked(t)", attack))}
    page.evaluate(
        "html => tests.answer.append(...tests.parsed(html).childNodes)", str(render("\n\n".join(attacks)))
    )
    page.wait_for_timeout(300)

    print(f"{len(attacks)} payloads in {time.monotonic() - began:.0f} s")
    assert len(attacks) > 200
    assert found == {}
    assert page.evaluate("executed") == 0
    assert page.evaluate("breaches") == []
    assert dialogs == []
    assert [url for url in requests if urlsplit(url).scheme != "data"] == []
    assert markdown_page.asked[asked:] == []
    context.close()


def test_the_watch_over_payloads_would_notice_one(browser: Browser, markdown_page: MarkdownPage) -> None:
    context = browser.new_context()
    page = opened(context.new_page(), markdown_page.url)

    page.evaluate(
        "tests.answer.append(...tests.parsed('<img src=https://evil.example/x onerror=boom()>').childNodes)"
    )

    page.wait_for_function("breaches.length >= 2")
    said = page.evaluate("breaches")
    assert any("img-src https://evil.example/x" in breach for breach in said)
    context.close()


def test_links_show_their_host_where_their_text_hides_it_and_lead_out_alone(page: Page) -> None:
    start_view(
        page,
        "[bank](https://evil.example/a) [https://bank.example](https://evil.example) "
        "<https://open.example/a> [open.example/a](https://open.example/a) ![pic](https://img.example/p.png)",
    )
    page.evaluate("view.finish()")

    expect(page.locator("#answer .host")).to_have_text(["(evil.example)", "(evil.example)", "(img.example)"])
    for link in page.locator("#answer a").all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow ugc"
        assert link.get_attribute("target") == "_blank"
    assert page.locator("#answer img").count() == 0
