"""Signing in to the page, in a browser: with a script and without, and when it ends in the middle."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import LAN_HOST
from tests.browser.pages import (
    answer_of,
    ask_and_wait,
    ask_more,
    expect_state,
    field,
    held,
    picture,
    prompt_for,
    send,
    slow,
    source_of,
    status,
    stream_of,
    wait_for_text,
)
from tests.browser.test_page_looks import SCREENS, look, serious
from tests.live.service import PATIENCE_SECONDS, REPOSITORY, Service, Upstream, request, wait_until

WRONG = "sk-sluice-aaaaaaaa-" + "b" * 43


class Keys:
    """The keys of a service, made as whoever runs it makes them."""

    def __init__(self, directory: Path) -> None:
        self._environment = os.environ | {"EVENTLOG_URL": f"sqlite:///{(directory / 'log.db').absolute()}"}

    def make(self, name: str, *options: str) -> str:
        return self._run("create", "--name", name, *options)

    def revoke(self, key: str) -> None:
        self._run("revoke", id_of(key))

    def rotate(self, key: str) -> str:
        return self._run("rotate", id_of(key), "--grace", "0s")

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "streaming", "keys", *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def id_of(key: str) -> str:
    return key.split("-")[2]


class Private(Service):
    """A service that lets in who has a key. One that lets in nobody else is healthy too."""

    def __init__(self, directory: Path, upstream_url: str, **environment: str) -> None:
        settings: dict[str, str | None] = {"AUTH": "keys", **environment}
        super().__init__(directory, upstream_url, workers=2, environment=settings)
        self.keys = Keys(directory)


@pytest.fixture(scope="module")
def private(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    """Two workers, whose connections last for two seconds."""
    service = Private(tmp_path_factory.mktemp("private"), upstream.base_url, CONNECTION_SECONDS="2")
    yield service
    service.kill()


@pytest.fixture
def lasting(upstream: Upstream, tmp_path: Path) -> Iterator[Private]:
    """One whose connections last as they do."""
    service = Private(tmp_path, upstream.base_url)
    yield service
    service.kill()


@pytest.fixture(scope="module")
def public(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    """A page for visitors."""
    service = Private(tmp_path_factory.mktemp("public"), upstream.base_url, PAGE="public")
    yield service
    service.kill()


@pytest.fixture(scope="module")
def key(private: Private) -> str:
    return private.keys.make("Ana")


@pytest.fixture
def watched(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab that axe may be put into, past the page's policy."""
    return new_context(bypass_csp=True).new_page()


def key_field(tab: Page) -> Locator:
    return tab.get_by_label("Your key")


def sign_in(tab: Page, service: Service, key: str, query: str = "") -> None:
    """Open the page and sign in with the form it shows."""
    tab.goto(service.url + "/" + query)
    key_field(tab).fill(key)
    with tab.expect_navigation():  # whatever comes: its script is there too
        tab.get_by_role("button", name="Sign in").click()


def token_of(tab: Page) -> str:
    return str(tab.locator("#ask input[name=csrf]").input_value())


# The form


@pytest.mark.parametrize("scripts", [True, False])
def test_a_key_opens_the_page_and_is_in_no_address(
    new_context: Callable[..., BrowserContext], private: Private, key: str, scripts: bool
) -> None:
    tab = new_context(java_script_enabled=scripts).new_page()
    addresses: list[str] = []
    tab.on("request", lambda request: addresses.append(request.url))

    sign_in(tab, private, key)

    expect(field(tab)).to_be_visible()
    expect(tab.get_by_text("Signed in as Ana")).to_be_visible()
    assert not [each for each in addresses if key in each]
    assert key not in tab.content()
    (cookie,) = tab.context.cookies()
    assert cookie["name"] == f"sluice-{private.port}"
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert key not in private.log_text()


def test_a_wrong_key_is_told_and_another_may_be_tried(tab: Page, private: Private, key: str) -> None:
    sign_in(tab, private, WRONG)
    expect(tab.get_by_role("alert")).to_have_text("This key is not known here, or is not valid any more.")
    expect(key_field(tab)).to_be_focused()
    expect(key_field(tab)).to_have_value("")
    key_field(tab).fill(key)
    key_field(tab).press("Enter")
    expect(field(tab)).to_be_visible()


def test_everything_works_without_a_script(plain_tab: Page, private: Private, key: str, token: str) -> None:
    sign_in(plain_tab, private, key)
    field(plain_tab).fill(prompt_for(token, text="Here you are."))
    send(plain_tab).click()
    expect(plain_tab.locator(".turn .answer")).to_contain_text("Here you are.")
    plain_tab.get_by_role("link", name="Rename or delete this conversation").click()
    plain_tab.get_by_label("Title").fill("Named by hand")
    plain_tab.get_by_role("button", name="Rename").click()
    expect(plain_tab.get_by_role("heading", level=1)).to_have_text("Named by hand")
    here = plain_tab.url
    plain_tab.get_by_role("button", name="Sign out").click()
    expect(key_field(plain_tab)).to_be_visible()
    plain_tab.goto(here)
    key_field(plain_tab).fill(key)
    plain_tab.get_by_role("button", name="Sign in").click()
    expect(plain_tab).to_have_url(here)
    expect(plain_tab.get_by_role("heading", level=1)).to_have_text("Named by hand")


def test_who_has_a_script_asks_and_stops_as_before(tab: Page, private: Private, key: str, token: str) -> None:
    sign_in(tab, private, key)
    ask_and_wait(tab, prompt_for(token, text="All of it."))
    assert answer_of(tab) == "All of it."
    ask_more(tab, prompt_for(f"{token}-2", **slow(tokens=400)))
    wait_for_text(tab, 40)
    tab.get_by_role("button", name="Stop", exact=True).click()
    expect_state(tab, "stopped")


def test_a_form_of_another_site_does_nothing(tab: Page, private: Private) -> None:
    sign_in(tab, private, private.keys.make("Eve"))
    expect(field(tab)).to_be_visible()
    threads = private.url + "/threads"
    elsewhere = private.url.replace("127.0.0.1", LAN_HOST)
    tab.route(
        f"{elsewhere}/evil", lambda route: route.fulfill(content_type="text/html", body=evil(private.url))
    )
    tab.goto(f"{elsewhere}/evil")
    with tab.expect_response(f"{private.url}/") as answered:
        tab.get_by_role("button", name="Win").click()
    assert answered.value.status in (401, 403)
    tab.goto(private.url)
    assert tab.evaluate("url => fetch(url).then(r => r.json())", threads)["threads"] == []


def evil(target: str) -> str:
    fields = '<input name="prompt" value="pay"><input name="thread" value="theirs">'
    return f'<form method="post" action="{target}/">{fields}<button>Win</button></form>'


# Its end


def test_signing_out_ends_it_in_every_tab(tab: Page, private: Private, token: str) -> None:
    sign_in(tab, private, private.keys.make("Ana"))
    ask_and_wait(tab, prompt_for(token, text="Mine alone."))
    other = tab.context.new_page()
    other.goto(tab.url)
    expect(other.locator(".turn")).to_contain_text("Mine alone.")
    cookies = tab.context.cookies()
    tab.get_by_role("button", name="Sign out").click()
    expect(key_field(tab)).to_be_visible()
    expect(key_field(other)).to_be_visible()
    expect(other.get_by_text("Mine alone.")).to_have_count(0)
    # A copy of the cookie is of no use either, at no worker.
    copied = f"{cookies[0]['name']}={cookies[0]['value']}"
    wait_until(
        lambda: all(
            request(private.port, "GET", "/threads", headers={"Cookie": copied}).status == 401
            for _ in range(6)
        ),
        PATIENCE_SECONDS,
        "every worker knows that the session has ended",
    )


def test_a_key_that_is_replaced_in_the_middle_of_an_answer_loses_nothing(
    watched: Page, private: Private, upstream: Upstream, token: str
) -> None:
    tab = watched
    first = private.keys.make("Ana")
    sign_in(tab, private, first)
    ask_more(tab, prompt_for(token, **held(token, tokens=400)))
    upstream.let(token, 40)
    wait_for_text(tab, 60)
    field(tab).fill("Half a question")

    second = private.keys.rotate(first)

    told = tab.get_by_text("You are not signed in any more.")
    expect(told).to_be_visible()
    expect(status(tab)).to_contain_text("Signed out")
    kept = answer_of(tab)
    assert len(kept) >= 60
    upstream.let(token)  # the rest comes while nobody hears it
    picture(tab, "signed-out")
    assert serious(tab) == []

    tab.get_by_role("button", name="Sign in").click()
    dialog = tab.get_by_role("dialog", name="Sign in again")
    dialog.get_by_label("Your key").fill(WRONG)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_have_text("This key is not known here, or is not valid any more.")
    dialog.get_by_label("Your key").fill(second)
    picture(tab, "sign-in-dialog")
    dialog.get_by_role("button", name="Sign in").click()

    expect(dialog).to_be_hidden()
    expect(told).to_be_hidden()
    expect_state(tab, "done")
    expect(field(tab)).to_have_value("Half a question")
    stream = request(
        private.port,
        "GET",
        f"/streams/{stream_of(tab)}",
        headers={"Authorization": f"Bearer {second}", "Accept": "application/json"},
    ).json()
    assert stream["state"] == "completed"
    assert source_of(tab) == stream["text"]
    assert answer_of(tab).startswith(kept.strip())


def test_a_key_that_is_revoked_in_the_middle_of_an_answer_stops_it_and_what_was_said_is_kept(
    tab: Page, lasting: Private, token: str
) -> None:
    first = lasting.keys.make("Ana")
    sign_in(tab, lasting, first)
    ask_more(tab, prompt_for(token, **slow(tokens=500, pace_ms=40)))
    wait_for_text(tab, 60)

    lasting.keys.revoke(first)

    expect(status(tab)).to_contain_text("Signed out", timeout=10_000)
    kept = answer_of(tab)
    second = lasting.keys.make("Ana", "--shares", id_of(first))
    tab.get_by_role("button", name="Sign in").click()
    dialog = tab.get_by_role("dialog", name="Sign in again")
    dialog.get_by_label("Your key").fill(second)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()
    expect_state(tab, "stopped")
    assert answer_of(tab).startswith(kept.strip())


def test_who_asks_after_the_session_ended_is_asked_for_the_key_and_keeps_the_question(
    watched: Page, private: Private, token: str
) -> None:
    tab = watched
    first = private.keys.make("Ana")
    sign_in(tab, private, first)
    expect(field(tab)).to_be_visible()
    before = token_of(tab)
    second = private.keys.rotate(first)
    wait_until(lambda: is_out(tab), PATIENCE_SECONDS, "the session has ended at both workers")

    question = prompt_for(token, text="Answered after all.")
    ask_more(tab, question)

    dialog = tab.get_by_role("dialog", name="Sign in again")
    expect(dialog).to_be_visible()
    assert serious(tab) == []
    dialog.get_by_label("Your key").fill(second)
    dialog.get_by_label("Your key").press("Enter")
    expect(dialog).to_be_hidden()
    expect(field(tab)).to_have_value(question)
    assert token_of(tab) != before, "forms are of the new session"
    send(tab).click()
    expect_state(tab, "done")
    assert answer_of(tab) == "Answered after all."
    tab.get_by_role("button", name="Sign out").click()
    expect(key_field(tab)).to_be_visible()


def is_out(tab: Page) -> bool:
    script = "Promise.all([1,2,3,4,5,6].map(() => fetch('/threads').then(r => r.status)))"
    return set(tab.evaluate(script)) == {401}


def test_signing_in_in_one_tab_lets_the_other_go_on(
    tab: Page, private: Private, upstream: Upstream, token: str
) -> None:
    first = private.keys.make("Ana")
    sign_in(tab, private, first)
    ask_more(tab, prompt_for(token, **held(token)))
    upstream.let(token, 40)
    wait_for_text(tab, 40)
    second = private.keys.rotate(first)
    expect(status(tab)).to_contain_text("Signed out")
    upstream.let(token)

    other = tab.context.new_page()
    sign_in(other, private, second)
    expect(field(other)).to_be_visible()

    expect(tab.get_by_text("You are not signed in any more.")).to_be_hidden()
    expect_state(tab, "done")


# A public page


def test_two_visitors_of_a_public_page_do_not_see_each_other(
    tab: Page, second_tab: Page, public: Private, token: str
) -> None:
    tab.goto(public.url)
    ask_and_wait(tab, prompt_for(token, text="Only for the first one."))
    expect(tab.get_by_text("You are a visitor")).to_be_visible()
    second_tab.goto(public.url)
    expect(field(second_tab)).to_be_visible()
    expect(second_tab.locator("#threads li")).to_have_count(0)
    second_tab.goto(tab.url)
    expect(second_tab.get_by_role("heading", name="This answer is not here")).to_be_visible()
    status_of = "id => fetch('/streams/' + id, {headers: {Accept: 'application/json'}}).then(r => r.status)"
    assert second_tab.evaluate(status_of, stream_of(tab)) == 404
    assert tab.evaluate(status_of, stream_of(tab)) == 200
    tab.reload()
    expect(tab.locator(".turn")).to_contain_text("Only for the first one.")


def test_a_visitor_may_sign_in_and_out_again(tab: Page, public: Private, token: str) -> None:
    tab.goto(public.url)
    ask_and_wait(tab, prompt_for(token, text="As a visitor."))
    tab.get_by_role("link", name="Sign in").click()
    key_field(tab).fill(public.keys.make("Ben"))
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_text("Signed in as Ben")).to_be_visible()
    expect(tab.locator("#threads li")).to_have_count(0)
    tab.get_by_role("button", name="Sign out").click()
    expect(tab.get_by_text("You are a visitor")).to_be_visible()
    expect(tab.locator("#threads li")).to_have_count(1)


# Its looks


@pytest.mark.parametrize("screen", list(SCREENS))
def test_the_form_looks_as_it_should(
    new_context: Callable[..., BrowserContext], private: Private, key: str, screen: str
) -> None:
    tab = new_context(**SCREENS[screen], bypass_csp=True).new_page()
    tab.goto(private.url)
    expect(key_field(tab)).to_be_focused()
    look(tab, f"sign-in-{screen}")
    key_field(tab).fill(WRONG)
    key_field(tab).press("Enter")
    expect(tab.get_by_role("alert")).to_be_visible()
    look(tab, f"sign-in-refused-{screen}")
    key_field(tab).fill(key)
    key_field(tab).press("Enter")
    expect(field(tab)).to_be_visible()
    look(tab, f"signed-in-{screen}")
