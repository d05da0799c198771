"""One event stream for all tabs of a browser: with six connections, eight answers all come."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import StartService
from tests.browser.pages import LONG_SECONDS, open_blank
from tests.live.middlebox import Middlebox, Passage
from tests.live.service import Service, Upstream, wait_until
from tests.live.upstream import contents
from tests.live.v1 import new_token

FOLLOW = """async ({ id, after, text }) => {
    const { sharedFollow } = await import("/static/shared.js");
    const run = sharedFollow(id, { after, text });
    const followed = { run, id, events: [], links: [], resets: 0, result: null };
    (window.followed ??= []).push(followed);
    run.addEventListener("event", ({ detail }) => followed.events.push(detail));
    run.addEventListener("link", ({ detail }) => followed.links.push(detail));
    run.addEventListener("reset", () => { followed.resets += 1; followed.events = []; });
    run.addEventListener("end", ({ detail }) => { followed.result = detail; });
}"""


@pytest.fixture
def middlebox(service: Service) -> Iterator[Middlebox]:
    box = Middlebox(service.port)
    yield box
    box.stop()


def prompt(**script: Any) -> str:
    return f"<<{json.dumps(script)}>>"


def open_tab(context: BrowserContext, box: Middlebox) -> Page:
    """Return a tab with an empty page of the service."""
    tab = context.new_page()
    open_blank(tab, box.url)
    return tab


def follow(tab: Page, stream_id: str, after: str = "", text: str | None = None) -> None:
    tab.evaluate(FOLLOW, {"id": stream_id, "after": after, "text": text})


def state_of(tab: Page, place: int = 0) -> dict[str, Any]:
    """Return what a tab was told of the run it follows."""
    found: dict[str, Any] = tab.evaluate(
        """place => { const { run, ...rest } = followed[place];
            return { ...rest, text: run.text, link: run.link, cursor: run.cursor }; }""",
        place,
    )
    return found


def wait_for_end(tab: Page, place: int = 0) -> dict[str, Any]:
    wait_until(lambda: state_of(tab, place)["result"], LONG_SECONDS, "the run has ended")
    return state_of(tab, place)


def wait_for_text(tab: Page, characters: int, place: int = 0) -> None:
    wait_until(lambda: len(state_of(tab, place)["text"]) >= characters, LONG_SECONDS, "some text has come")


def assert_whole(told: dict[str, Any], text: str) -> None:
    said = "".join(event["content"] for event in told["events"] if event["type"] == "token")
    assert told["text"] == text
    assert text.endswith(said)
    assert told["result"]["verified"] is True
    assert told["resets"] == 0


def followed_by(path: str) -> set[str]:
    """Return the streams a feed was asked for."""
    return {each.partition("@")[0] for each in parse_qs(urlsplit(path).query).get("follow", [])}


def test_eight_tabs_with_eight_answers_share_one_connection(
    context: BrowserContext, service: Service, middlebox: Middlebox, upstream: Upstream
) -> None:
    gate = new_token()
    script = {"tokens": 100, "pace_ms": 20, "gate": gate}
    tabs = [open_tab(context, middlebox) for _ in range(8)]
    ids = [service.create(prompt(**script, fill=place + 5)) for place in range(8)]

    for tab, stream_id in zip(tabs, ids, strict=True):
        follow(tab, stream_id)
    upstream.let(gate, 30)
    for tab in tabs:
        wait_for_text(tab, 30)
    middlebox.wait_for_streams(1)
    assert followed_by(middlebox.asked[-1]) == set(ids)
    upstream.let(gate)

    for place, tab in enumerate(tabs):
        told = wait_for_end(tab)
        assert_whole(told, "".join(contents({**script, "fill": place + 5})))
        assert told["links"] == ["open"]
    assert middlebox.most_open <= 2, "one is closed before the next is opened"
    assert all(path.startswith("/streams?") for path in middlebox.asked)
    middlebox.wait_for_streams(0)


def test_the_same_answer_in_two_tabs_is_told_to_each_from_its_own_place(
    context: BrowserContext, service: Service, middlebox: Middlebox, upstream: Upstream
) -> None:
    gate = new_token()
    script = {"tokens": 100, "pace_ms": 20, "gate": gate}
    first, second, third = (open_tab(context, middlebox) for _ in range(3))
    stream_id = service.create(prompt(**script))
    follow(first, stream_id)
    upstream.let(gate, 40)
    wait_for_text(first, 60)
    kept = service.snapshot(stream_id)

    follow(second, stream_id)
    follow(third, stream_id, kept["cursor"], kept["text"])
    upstream.let(gate)

    for tab in (first, second, third):
        assert_whole(wait_for_end(tab), "".join(contents(script)))
    assert state_of(first)["events"] == state_of(second)["events"]
    assert len(state_of(third)["events"]) < len(state_of(first)["events"])


FEED = """async () => {
    const { Feed } = await import("/static/shared_worker.js");
    const opened = [];
    const feed = new Feed("/streams", (url) => {
        const followed = new URL(url, location).searchParams.getAll("follow");
        const source = { followed, closed: false, addEventListener() {}, close() { this.closed = true; } };
        opened.push(source);
        return source;
    });
    const join = (stream) => {
        const follower = { stream, after: "0.0", seq: 0, told: [], tell(said) { this.told.push(said); } };
        feed.join(follower);
        return follower;
    };
    const later = () => new Promise((done) => setTimeout(done, 50));
    const now = () => opened.map(({ followed, closed }) => [followed.length, closed]);
    const seen = [];
    const first = join("a");
    await later();
    const second = join("b");  // while the first connection has not answered
    await later();
    seen.push(now());
    opened[0].onopen();
    await later();
    seen.push(now());
    opened[1].onopen();
    seen.push(now(), [first.told.at(-1), second.told.at(-1)]);
    return seen;
}"""


def test_a_run_whose_connection_has_not_answered_keeps_it_until_the_next_one_is_there(
    context: BrowserContext, middlebox: Middlebox
) -> None:
    """It may be the run's only reader: without one, a run that ends with its readers would be cancelled."""
    assert open_tab(context, middlebox).evaluate(FEED) == [
        [[1, False]],
        [[1, False], [2, False]],
        [[1, True], [2, False]],
        [{"open": True}, {"open": True}],
    ]


def test_a_tab_that_is_closed_takes_its_run_out_of_the_feed(
    context: BrowserContext, service: Service, middlebox: Middlebox, upstream: Upstream
) -> None:
    names = [new_token(), new_token()]
    slow = {"tokens": 1000, "pace_ms": 30}
    ids = [service.create(prompt(**slow, token=name), on_disconnect="cancel") for name in names]
    kept, left = open_tab(context, middlebox), open_tab(context, middlebox)
    follow(kept, ids[0])
    follow(left, ids[1])
    wait_for_text(kept, 20)
    wait_for_text(left, 20)

    left.close()

    upstream.wait_for_close(names[1])
    assert service.snapshot(ids[1])["state"] == "cancelled"
    assert followed_by(middlebox.asked[-1]) == {ids[0]}
    before = len(state_of(kept)["text"])
    wait_for_text(kept, before + 20)
    assert state_of(kept)["links"] == ["open"]
    kept.close()
    upstream.wait_for_close(names[0])


def test_a_tab_that_was_killed_is_missed(
    context: BrowserContext, service: Service, middlebox: Middlebox, upstream: Upstream
) -> None:
    name = new_token()
    stream_id = service.create(prompt(tokens=3000, pace_ms=30, token=name), on_disconnect="cancel")
    other, tab = open_tab(context, middlebox), open_tab(context, middlebox)
    other.evaluate("import('/static/shared.js').then(({ sharedFollow }) => sharedFollow('st_none').finished)")
    follow(tab, stream_id)
    wait_for_text(tab, 20)

    tab.evaluate("() => { setTimeout(() => { for (;;); }) }")

    upstream.wait_for_close(name, LONG_SECONDS)


def test_connections_that_are_cut_cost_no_character_in_any_tab(
    context: BrowserContext, service: Service, middlebox: Middlebox
) -> None:
    script = {"tokens": 100, "pace_ms": 50}
    middlebox.passages = [Passage(events=90)]
    tabs = [open_tab(context, middlebox) for _ in range(3)]
    ids = [service.create(prompt(**script, fill=place + 5)) for place in range(3)]

    for tab, stream_id in zip(tabs, ids, strict=True):
        follow(tab, stream_id)

    for place, tab in enumerate(tabs):
        told = wait_for_end(tab)
        assert_whole(told, "".join(contents({**script, "fill": place + 5})))
    assert any("reconnecting" in state_of(tab)["links"] for tab in tabs)


def test_a_network_that_holds_streams_back_is_polled_by_each_tab(
    context: BrowserContext, service: Service, middlebox: Middlebox
) -> None:
    script = {"tokens": 150, "pace_ms": 60}
    middlebox.passages = [Passage(held=True)]
    tabs = [open_tab(context, middlebox) for _ in range(2)]
    ids = [service.create(prompt(**script)) for _ in tabs]

    for tab, stream_id in zip(tabs, ids, strict=True):
        follow(tab, stream_id)

    for tab in tabs:
        told = wait_for_end(tab)
        assert_whole(told, "".join(contents(script)))
        assert "polling" in told["links"]


def test_two_runs_of_one_tab_end_each_for_itself(
    context: BrowserContext, service: Service, middlebox: Middlebox
) -> None:
    tab = open_tab(context, middlebox)
    short, long = service.create(prompt(tokens=3)), service.create(prompt(tokens=80, pace_ms=30))
    gone = f"st_{'a' * 34}"
    for stream_id in (short, long, gone):
        follow(tab, stream_id)

    assert_whole(wait_for_end(tab, place=0), "".join(contents({"tokens": 3})))
    assert wait_for_end(tab, place=2)["result"]["error"]["type"] == "stream_lost"
    assert_whole(wait_for_end(tab, place=1), "".join(contents({"tokens": 80})))


@pytest.mark.parametrize(
    "broken",
    [
        "delete window.SharedWorker",
        "window.SharedWorker = class { constructor() { throw new Error('no') } }",
        "window.SharedWorker = class { port = new MessageChannel().port1; }",
    ],
    ids=["there are none", "they are refused", "they do not answer"],
)
def test_a_browser_whose_shared_workers_do_not_work_follows_by_itself(
    context: BrowserContext, service: Service, middlebox: Middlebox, broken: str
) -> None:
    context.add_init_script(broken)
    script = {"tokens": 120, "pace_ms": 40}
    tab = open_tab(context, middlebox)
    stream_id = service.create(prompt(**script))

    follow(tab, stream_id)

    assert_whole(wait_for_end(tab), "".join(contents(script)))
    assert [path.partition("?")[0] for path in middlebox.asked] == [f"/streams/{stream_id}"]


def test_a_page_under_a_strict_policy_may_have_its_worker(
    context: BrowserContext, service: Service, middlebox: Middlebox
) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
        "require-trusted-types-for 'script'; trusted-types sluice-worker"
    )
    strict: Callable[..., None] = lambda route: route.fulfill(  # noqa: E731
        status=200, content_type="text/html", headers={"Content-Security-Policy": policy}, body="<p>"
    )
    context.route("**/strict", strict)
    tab = context.new_page()
    tab.goto(f"{middlebox.url}/strict")
    stream_id = service.create(prompt(tokens=30, pace_ms=10))

    follow(tab, stream_id)

    assert_whole(wait_for_end(tab), "".join(contents({"tokens": 30})))
    assert [path.partition("?")[0] for path in middlebox.asked] == ["/streams"]


def test_a_service_that_is_started_again_is_found_again(
    context: BrowserContext, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service()
    box = Middlebox(service.port)
    ids = [service.create(prompt(tokens=1000, pace_ms=30)) for _ in range(2)]
    tabs = [open_tab(context, box) for _ in ids]
    for tab, stream_id in zip(tabs, ids, strict=True):
        follow(tab, stream_id)
    for tab in tabs:
        wait_for_text(tab, 30)

    service.kill()
    monkeypatch.setattr("tests.live.service.free_port", lambda: service.port)
    start_service()

    for tab, stream_id in zip(tabs, ids, strict=True):
        told = wait_for_end(tab)
        assert told["result"]["error"]["type"] == "interrupted"
        assert told["text"] == service.snapshot(stream_id)["text"]
    box.stop()


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "javascript.md"


@pytest.mark.parametrize(
    ("place", "waits_for"),
    [(0, "#state:has-text('ended: stop')"), (1, "#second:not(:empty)")],
    ids=["listeners", "shared"],
)
def test_each_page_of_the_document_works_as_it_is(
    context: BrowserContext, demo: Service, place: int, waits_for: str
) -> None:
    pages = re.findall(r"^```html\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(pages) == 2
    context.route(
        "**/pasted", lambda route: route.fulfill(status=200, content_type="text/html", body=pages[place])
    )
    tab = context.new_page()

    tab.goto(f"{demo.url}/pasted")
    tab.wait_for_selector(waits_for)

    answers = tab.locator("#answer, #first, #second").all_text_contents()
    assert len(answers[0]) > 50
    assert len(set(answers)) == 1
