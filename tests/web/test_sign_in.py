"""Signing in to the page: the cookie, the tokens of forms, who sees what, and how it ends."""

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any

import itsdangerous.timed
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from streaming import keyring
from streaming.errors import SettingsError, StoreUnavailable
from streaming.keyring import Issued, Keyring
from streaming.settings import Settings
from streaming.web import _sessions
from tests.web.conftest import FAST, refused

HTTPS = "https://sluice.test"
LOOPBACK = "http://127.0.0.1:8000"
HTML = {"Accept": "text/html"}
WRONG = "sk-sluice-aaaaaaaa-" + "b" * 43


class Browser:
    """One browser in front of a service: keeps cookies, and says where its requests come from."""

    def __init__(self, app: Flask, base: str = HTTPS) -> None:
        self.client: FlaskClient = app.test_client()
        self.base = base

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, base_url=self.base, headers=HTML | headers)

    def post(
        self,
        path: str,
        form: dict[str, str] | None = None,
        json: Any = None,
        site: str | None = "same-origin",
        origin: str | None = "",
        **headers: str,
    ) -> TestResponse:
        """Send as our own page does, or as another ``site`` or ``origin``; ``None``: without that header."""
        sent = HTML | headers
        if site is not None:
            sent["Sec-Fetch-Site"] = site
        if origin is not None:
            sent["Origin"] = origin or self.base
        return self.client.post(path, base_url=self.base, data=form, json=json, headers=sent)

    def sign_in(self, key: str, **fields: str) -> TestResponse:
        return self.post("/sign-in", {"key": key, **fields})

    def token(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/").text)
        assert found, "the page has no token"
        return found[1]

    def ask(self, prompt: str = "hello") -> str:
        """Ask as the page's script does; return the stream's id."""
        response = self.post("/streams", json={"prompt": prompt}, Accept="application/json")
        assert response.status_code == 201, response.text
        stream_id: str = response.json["stream_id"]
        return stream_id

    def cookie(self, name: str) -> str:
        kept = self.client.get_cookie(name, domain=self.base.split("//")[1].split(":")[0])
        return kept.value if kept else ""


class Place:
    """A service that lets in who has a key."""

    def __init__(self, **settings: Any) -> None:
        self.app = create_app(replace(FAST, **{"auth": "keys", **settings}))
        self.keys: Keyring = self.app.extensions["access"].keys
        self.ana: Issued = self.keys.issue(("run",), "Ana")
        self.ben: Issued = self.keys.issue(("run",), "Ben")

    def browser(self, base: str = HTTPS, key: str = "") -> Browser:
        """Return a new browser, signed in with ``key``."""
        browser = Browser(self.app, base)
        if key:
            assert browser.sign_in(key).status_code == 303
        return browser

    def stop_the_clock(self) -> None:
        """Have no minute end in which something is counted."""
        self.app.extensions["counters"].windows.clock = lambda: 1_000_000_000.0

    def end(self) -> None:
        streams = self.app.extensions["streams"]
        streams.drain(0, 0)
        streams.close()


Open = Callable[..., Place]


@pytest.fixture
def open_place() -> Iterator[Open]:
    made: list[Place] = []

    def open_(**settings: Any) -> Place:
        made.append(Place(**settings))
        return made[-1]

    yield open_
    for place in made:
        place.end()


@pytest.fixture
def place(open_place: Open) -> Place:
    return open_place()


def given(response: TestResponse, name: str) -> Any:
    """Return a cookie that an answer sets, with its attributes."""
    for line in response.headers.getlist("Set-Cookie"):
        cookie = SimpleCookie(line)
        if name in cookie:
            return cookie[name]
    raise AssertionError(f"no cookie {name}: {response.headers.getlist('Set-Cookie')}")


# The form


def test_the_page_asks_for_a_key_and_shows_nothing(place: Place) -> None:
    response = place.browser().get("/?thread=t1")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert 'autocomplete="current-password"' in response.text
    assert "Your question" not in response.text
    assert response.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script" not in response.text


def test_a_key_signs_in_and_leads_back_to_where_one_was(place: Place) -> None:
    browser = place.browser()
    response = browser.sign_in(place.ana.text, next="?thread=t1&evil=1")
    assert (response.status_code, response.headers["Location"]) == (303, "/?thread=t1")
    page = browser.get("/")
    assert page.status_code == 200
    assert "Signed in as" in page.text
    assert "Ana" in page.text


@pytest.mark.parametrize("next_", ["//evil.test", "https://evil.test/?thread=t1", "/\\evil.test", "\r\nX: y"])
def test_signing_in_leads_to_no_other_place(place: Place, next_: str) -> None:
    response = place.browser().sign_in(place.ana.text, next=next_)
    assert response.headers["Location"].startswith("/")
    assert "evil" not in response.headers["Location"].split("?")[0]
    assert "X" not in response.headers


def test_over_https_the_cookie_is_bound_to_the_host(place: Place) -> None:
    cookie = given(place.browser().sign_in(place.ana.text), "__Host-sluice")
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/"
    assert not cookie["domain"]
    assert 0 < int(cookie["max-age"]) <= 12 * 3600


def test_on_this_machine_the_cookie_works_without_https(place: Place) -> None:
    browser = place.browser(LOOPBACK)
    cookie = given(browser.sign_in(place.ana.text), "sluice-8000")
    assert cookie["httponly"]
    assert not cookie["secure"]
    assert browser.get("/").status_code == 200


def test_over_plain_http_from_elsewhere_nobody_is_asked_for_a_key(place: Place) -> None:
    browser = place.browser("http://sluice.test")
    page = browser.get("/")
    assert "needs HTTPS" in page.text
    assert 'name="key"' not in page.text
    response = browser.sign_in(place.ana.text)
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("base", ["http://sluice.test", "http://other.test:8000"])
def test_a_cookie_is_not_believed_where_it_could_have_been_read(place: Place, base: str) -> None:
    signed_in = place.browser(key=place.ana.text)
    value = signed_in.cookie("__Host-sluice")
    plain = Browser(place.app, base)
    for name in ("__Host-sluice", "sluice-80", "sluice-8000", "sluice"):
        plain.client.set_cookie(name, value, domain=base.split("//")[1].split(":")[0])
    assert plain.get("/").status_code == 401


def test_the_cookie_holds_neither_the_key_nor_its_hash(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    value = browser.cookie("__Host-sluice")
    payload = value.removeprefix(".").split(".")[0]
    found = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    plain = (zlib.decompress(found) if value.startswith(".") else found).decode()
    assert place.ana.key.id in plain
    for secret in (place.ana.text, place.ana.key.hash, place.ana.text.rsplit("-")[-1]):
        assert secret not in plain


# What is refused


@pytest.mark.parametrize("key", ["", WRONG, "sk-sluice-x", "x" * 200, "\x00", "Ω" * 40])
def test_a_wrong_key_is_refused_in_the_same_words(place: Place, key: str) -> None:
    response = place.browser().sign_in(key)
    assert response.status_code == 401
    assert "This key is not known here, or is not valid any more." in response.text
    assert "Set-Cookie" not in response.headers
    assert not key or key not in response.text


def test_revoked_and_expired_keys_are_refused_in_the_words_for_unknown_ones(place: Place) -> None:
    place.keys.revoke(place.ana.key.id)
    expired = place.keys.issue(("run",), expires=1.0)
    said = [place.browser().sign_in(key) for key in (WRONG, place.ana.text, expired.text)]
    assert [each.status_code for each in said] == [401] * 3
    assert len({re.sub(r'nonce="[^"]+"', "", each.text) for each in said}) == 1


def test_a_key_that_may_not_read_cannot_sign_in(place: Place) -> None:
    response = place.browser().sign_in(place.keys.issue(("metrics",)).text)
    assert response.status_code == 403
    assert "scopes" in response.text
    assert "Set-Cookie" not in response.headers


def test_a_key_that_may_only_read_sees_the_page_and_asks_nothing(place: Place) -> None:
    browser = place.browser(key=place.keys.issue(("read",)).text)
    assert browser.get("/").status_code == 200
    refused(
        browser.post("/streams", json={"prompt": "hi"}, Accept="application/json"), 403, "permission_denied"
    )


def test_too_many_failures_are_told_to_wait_whatever_comes_next(open_place: Open) -> None:
    place = open_place(sign_in_failures_per_minute=3)
    place.stop_the_clock()
    browser = place.browser()
    for _ in range(3):
        assert browser.sign_in(WRONG).status_code == 401
    response = browser.sign_in(place.ana.text)
    assert response.status_code == 429
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert "Set-Cookie" not in response.headers


def test_who_signs_in_is_not_counted_as_a_failure(open_place: Open) -> None:
    place = open_place(sign_in_failures_per_minute=2)
    for _ in range(6):
        place.browser(key=place.ana.text)


def test_the_form_is_small(place: Place) -> None:
    response = place.browser().sign_in("x" * 100_000)
    assert response.status_code == 413


def test_a_script_is_answered_in_json(place: Place) -> None:
    browser = place.browser()
    wrong = browser.post("/sign-in", {"key": WRONG}, Accept="application/json")
    refused(wrong, 401, "not_authenticated", code="invalid_key")
    right = browser.post("/sign-in", {"key": place.ana.text}, Accept="application/json")
    assert right.json["name"] == "Ana"
    assert right.json["csrf"] == browser.token()


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("cross-site", "https://evil.test"),
        ("same-site", "https://other.sluice.test"),
        (None, "https://evil.test"),
        (None, "http://sluice.test"),
        (None, "null"),
        (None, None),
        ("none", None),
    ],
)
def test_no_other_site_can_sign_somebody_in(place: Place, site: str | None, origin: str | None) -> None:
    response = place.browser().post("/sign-in", {"key": place.ana.text}, site=site, origin=origin)
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers


# Requests that are believed for a cookie


@pytest.mark.parametrize("path", ["/", "/stop", "/rename", "/delete", "/sign-out"])
@pytest.mark.parametrize("token", [None, "", "wrong", "Ω", "of another"])
def test_a_form_without_the_sessions_token_changes_nothing(
    place: Place, path: str, token: str | None
) -> None:
    browser = place.browser(key=place.ana.text)
    form = {"prompt": "hello", "thread": "t1", "title": "x"}
    if token is not None:
        form["csrf"] = place.browser(key=place.ben.text).token() if token == "of another" else token
    response = browser.post(path, form)
    assert response.status_code == 403
    assert "load the page again" in response.text
    assert browser.get("/threads", Accept="application/json").json["threads"] == []
    assert browser.get("/").status_code == 200, "it is still signed in"


def test_a_form_with_the_token_is_taken(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    response = browser.post("/", {"prompt": "hello", "thread": "t1", "csrf": browser.token()})
    assert response.status_code == 303
    assert [each["id"] for each in browser.get("/threads", Accept="application/json").json["threads"]] == [
        "t1"
    ]


def test_a_long_question_fits_into_a_form(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    response = browser.post(
        "/", {"prompt": "a" * 150_000, "csrf": browser.token(), "instructions": "b" * 40_000}
    )
    assert response.status_code == 303


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("cross-site", "https://evil.test"),
        ("same-site", "https://other.sluice.test"),
        (None, "https://evil.test"),
        (None, "https://sluice.test.evil.test"),
        (None, "null"),
        (None, None),
    ],
)
def test_no_other_sites_page_does_anything_with_the_cookie(
    place: Place, site: str | None, origin: str | None
) -> None:
    browser = place.browser(key=place.ana.text)
    token, stream_id = browser.token(), browser.ask()
    at = {"site": site, "origin": origin, "Accept": "application/json"}
    answers = [
        browser.post("/", {"prompt": "hello", "csrf": token}, **at),
        browser.post("/streams", json={"prompt": "hello"}, **at),
        browser.post(f"/streams/{stream_id}/cancel", **at),
        browser.post(
            "/v1/chat/completions",
            json={"model": "demo", "messages": [{"role": "user", "content": "x"}]},
            **at,
        ),
        browser.post("/threads", json={"title": "x"}, **at),
        browser.post("/sign-out", {"csrf": token}, **at),
    ]
    assert [answer.status_code for answer in answers] == [403] * len(answers)
    assert browser.get(f"/streams/{stream_id}", Accept="application/json").json["state"] != "cancelled"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_what_a_foreign_form_can_send_needs_the_token_even_from_here(place: Place, kind: str) -> None:
    browser = place.browser(key=place.ana.text)
    response = browser.client.post(
        "/streams",
        base_url=HTTPS,
        data=b'{"prompt": "hi"}',
        content_type=kind,
        headers={"Sec-Fetch-Site": "same-origin", "Origin": HTTPS},
    )
    assert response.status_code == 403
    assert response.json["error"]["code"] == "csrf"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.test"},
        {},
    ],
)
def test_a_get_that_starts_a_run_needs_to_come_from_our_page(place: Place, headers: dict[str, str]) -> None:
    browser = place.browser(key=place.ana.text)
    assert browser.get("/stream?prompt=hi", **headers).status_code == 403
    ours = browser.get("/stream?prompt=hi", **{"Sec-Fetch-Site": "same-origin"})
    assert ours.status_code == 200


def test_no_get_changes_anything(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    stream_id = browser.ask()
    for path in (
        "/sign-out",
        "/delete?thread=t1",
        "/rename?thread=t1&title=x",
        f"/stop?stream={stream_id}",
        f"/streams/{stream_id}/cancel",
        "/?prompt=hello",
    ):
        browser.get(path)
    assert browser.get("/").status_code == 200
    assert browser.get("/threads", Accept="application/json").json["threads"] == []


@pytest.mark.parametrize("origin", ["https://evil.test", "null", None])
def test_no_other_site_opens_a_websocket_with_the_cookie(place: Place, origin: str | None) -> None:
    browser = place.browser(key=place.ana.text)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    if origin:
        headers["Origin"] = origin
    assert browser.get("/ws", **headers, Accept="application/json").status_code == 403
    ours = browser.get("/ws", **headers | {"Origin": HTTPS}, Accept="application/json")
    assert ours.status_code == 501, "it was let in, as far as a test client can come"


# Its end


def test_signing_out_ends_the_session_for_copies_of_the_cookie_too(place: Place) -> None:
    browser, thief = place.browser(key=place.ana.text), Browser(place.app)
    thief.client.set_cookie("__Host-sluice", browser.cookie("__Host-sluice"), domain="sluice.test")
    assert thief.get("/").status_code == 200
    response = browser.post("/sign-out", {"csrf": browser.token()})
    assert (response.status_code, response.headers["Location"]) == (303, "/sign-in")
    assert given(response, "__Host-sluice").value == ""
    assert response.headers["Clear-Site-Data"] == '"storage"'
    assert browser.get("/").status_code == thief.get("/").status_code == 401


def test_signing_out_twice_is_signing_out(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    token = browser.token()
    assert browser.post("/sign-out", {"csrf": token}).status_code == 303
    assert browser.post("/sign-out", {"csrf": token}).headers["Location"] == "/sign-in"


def test_no_other_site_can_have_a_browser_forget(place: Place) -> None:
    browser = place.browser()  # as from another site: the browser holds the cookie back
    for site, origin in (("cross-site", "https://evil.test"), (None, "null"), (None, None)):
        response = browser.post("/sign-out", {}, site=site, origin=origin)
        assert response.status_code == 403
        assert "Clear-Site-Data" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_signing_in_gives_a_new_session_and_ends_the_one_before(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    before = browser.cookie("__Host-sluice")
    assert browser.sign_in(place.ana.text).status_code == 303
    assert browser.cookie("__Host-sluice") != before
    old = Browser(place.app)
    old.client.set_cookie("__Host-sluice", before, domain="sluice.test")
    assert old.get("/").status_code == 401


@pytest.mark.parametrize("end", ["revoked", "rotated"])
def test_a_session_ends_with_its_key(place: Place, end: str) -> None:
    browser = place.browser(key=place.ana.text)
    stream_id = browser.ask()
    if end == "revoked":
        place.keys.revoke(place.ana.key.id)
    else:
        place.keys.rotate(place.ana.key.id, 0)
    refused(browser.get(f"/streams/{stream_id}", Accept="application/json"), 401, "not_authenticated")
    assert browser.get("/").status_code == 401


def test_while_a_rotated_key_is_still_taken_its_session_goes_on(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    place.keys.rotate(place.ana.key.id, 3600)
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    ("setting", "seconds"), [("session_idle_seconds", 4000), ("session_seconds", 90_000)]
)
def test_a_session_does_not_last_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch, setting: str, seconds: float
) -> None:
    idle = replace(FAST, auth="keys", session_idle_seconds=3600, session_seconds=86_400)
    browser = place.browser(key=place.ana.text)
    monkeypatch.setattr(place.app.extensions["sessions"], "_settings", idle)
    assert browser.get("/").status_code == 200
    _pass_time(monkeypatch, seconds, steps=1 if setting == "session_idle_seconds" else 60, browser=browser)
    assert browser.get("/").status_code == 401


def test_a_session_in_use_is_renewed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = place.browser(key=place.ana.text)
    before = browser.cookie("__Host-sluice")
    assert "Set-Cookie" not in browser.get("/").headers
    _pass_time(monkeypatch, 6 * 3600, steps=1, browser=browser)
    assert given(browser.get("/"), "__Host-sluice").value != before
    _pass_time(monkeypatch, 8 * 3600, steps=1, browser=browser)
    assert browser.get("/").status_code == 200


def _pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int, browser: Browser) -> None:
    """Let time pass for cookies; between the steps the page is looked at."""
    now = _sessions.time.time()
    clock = [now]

    class Clock:
        monotonic = staticmethod(_sessions.time.monotonic)

        @staticmethod
        def time() -> float:
            return clock[0]

    monkeypatch.setattr(_sessions, "time", Clock)
    monkeypatch.setattr(itsdangerous.timed, "time", Clock)
    for _ in range(steps):
        clock[0] += seconds / steps
        if steps > 1:
            browser.get("/")


@pytest.mark.parametrize("changed", ["payload", "signature", "nothing of ours", "long", "visitor's"])
def test_a_forged_cookie_is_nobodys(open_place: Open, changed: str) -> None:
    place = open_place(page="public")
    browser = place.browser(key=place.ana.text)
    value = browser.cookie("__Host-sluice")
    signed, _, signature = value.rpartition(".")
    visitor = place.browser()
    visitor.get("/")
    forged = {
        "payload": "A" + value[1:],
        # Its first letter: the last one holds fewer bits than a letter can tell apart.
        "signature": f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "nothing of ours": "garbage",
        "long": value + "." * 2000,
        "visitor's": visitor.cookie("__Host-sluice-visitor"),
    }[changed]
    other = Browser(place.app)
    other.client.set_cookie("__Host-sluice", forged, domain="sluice.test")
    assert other.get("/v1/models", Accept="application/json").status_code == 401


def test_a_new_secret_takes_the_sessions_of_the_one_before(open_place: Open) -> None:
    old, new = "old" * 20, "new" * 20
    key = keyring.make(("run",), "Ana")
    entry = keyring.entry_of(key.key)
    browser = open_place(secret_key=(old,), api_keys=(entry,)).browser(key=key.text)
    value = browser.cookie("__Host-sluice")

    def status(**settings: Any) -> int:
        other = Browser(open_place(api_keys=(entry,), **settings).app)
        other.client.set_cookie("__Host-sluice", value, domain="sluice.test")
        return other.get("/").status_code

    assert status(secret_key=(new, old)) == 200
    assert status(secret_key=(new,)) == 401
    assert status() == 401


# Who sees what


def test_what_belongs_to_one_does_not_exist_for_another(place: Place) -> None:
    ana, ben = place.browser(key=place.ana.text), place.browser(key=place.ben.text)
    stream_id = ana.ask()
    ana.post("/", {"prompt": "hello", "thread": "t1", "csrf": ana.token()})
    assert ana.get(f"/?stream={stream_id}").status_code == 200
    assert ben.get(f"/?stream={stream_id}").status_code == 404
    assert ben.get("/?thread=t1").status_code == 404
    refused(ben.get(f"/streams/{stream_id}", Accept="application/json"), 404, "not_found")
    assert ben.post("/stop", {"stream": stream_id, "csrf": ben.token()}).status_code == 404
    assert ben.get("/threads", Accept="application/json").json["threads"] == []


@pytest.mark.parametrize(
    ("path", "field"), [("/stop", "stream"), ("/rename", "thread"), ("/delete", "thread")]
)
def test_a_form_about_what_is_gone_is_answered_by_the_page(place: Place, path: str, field: str) -> None:
    browser = place.browser(key=place.ana.text)

    answer = browser.post(path, {field: "st_gone", "csrf": browser.token()})

    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    assert 'name="prompt"' in answer.text


def test_the_session_is_the_keys_own_principal(place: Place) -> None:
    browser = place.browser(key=place.ana.text)
    stream_id = browser.ask()
    bearer = {"Authorization": f"Bearer {place.ana.text}", "Accept": "application/json"}
    assert Browser(place.app).get(f"/streams/{stream_id}", **bearer).status_code == 200


# A public page


def test_a_visitor_of_a_public_page_is_somebody_from_the_first_look_on(open_place: Open) -> None:
    place = open_place(page="public")
    visitor = place.browser()
    page = visitor.get("/")
    assert page.status_code == 200
    cookie = given(page, "__Host-sluice-visitor")
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert visitor.post("/", {"prompt": "hello", "thread": "t1", "csrf": visitor.token()}).status_code == 303
    assert visitor.get("/?thread=t1").status_code == 200


def test_a_sessions_cookie_makes_no_visitor(open_place: Open) -> None:
    place = open_place(page="public")
    value = place.browser(key=place.ana.text).cookie("__Host-sluice")
    other = place.browser()
    other.client.set_cookie("__Host-sluice-visitor", value, domain="sluice.test")
    assert given(other.get("/"), "__Host-sluice-visitor").value != value


def test_two_visitors_do_not_see_each_other(open_place: Open) -> None:
    place = open_place(page="public")
    one, other = place.browser(), place.browser()
    one.get("/")
    other.get("/")
    stream_id = one.ask()
    assert one.get(f"/?stream={stream_id}").status_code == 200
    assert other.get(f"/?stream={stream_id}").status_code == 404
    assert other.post(f"/streams/{stream_id}/cancel", Accept="application/json").status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/runnables", "/stream?prompt=hi"])
def test_a_visitor_has_the_page_and_nothing_else(open_place: Open, path: str) -> None:
    visitor = open_place(page="public").browser()
    visitor.get("/")
    response = visitor.get(path, **{"Accept": "application/json", "Sec-Fetch-Site": "same-origin"})
    assert response.status_code == 401


def test_only_the_page_makes_visitors_and_not_too_many(open_place: Open) -> None:
    place = open_place(page="public", visitors_per_hour=2)
    refused(
        place.browser().post("/streams", json={"prompt": "hi"}, Accept="application/json"),
        401,
        "not_authenticated",
    )
    first = place.browser()
    assert [first.get("/").status_code, place.browser().get("/").status_code] == [200, 200]
    third = place.browser().get("/")
    assert third.status_code == 429
    assert int(third.headers["Retry-After"]) >= 1
    assert first.get("/").status_code == 200, "who is known already goes on"


def test_a_session_that_ended_does_not_become_a_visitor_unseen(open_place: Open) -> None:
    place = open_place(page="public")
    browser = place.browser()
    browser.get("/")
    browser.sign_in(place.ana.text)
    stream_id = browser.ask()
    place.keys.revoke(place.ana.key.id)
    refused(browser.get(f"/streams/{stream_id}", Accept="application/json"), 401, "not_authenticated")
    assert browser.get("/").status_code == 200
    assert browser.get(f"/streams/{stream_id}", Accept="application/json").status_code == 404


# Behind a proxy that says who asks


def test_whom_a_proxy_names_sees_the_page_and_nobody_else_does(open_place: Open) -> None:
    place = open_place(auth="proxy", auth_proxy_addresses=("127.0.0.1",))
    browser = place.browser()
    page = browser.get("/", **{"X-Forwarded-User": "ana"})
    assert page.status_code == 200
    assert "Sign out" not in page.text, "that is the proxy's business"
    unnamed = browser.get("/")
    assert unnamed.status_code == 401
    assert "the proxy in front of this service" in unnamed.text
    assert 'name="key"' not in unnamed.text
    refused(browser.sign_in(place.ana.text), 404, "not_found")


# The store


def test_who_was_let_in_by_a_store_that_fails_meanwhile_still_gets_the_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = place.browser(key=place.ana.text)
    _pass_time(monkeypatch, 3600, steps=1, browser=browser)
    sessions = place.app.extensions["sessions"]
    given = sessions.set_cookies

    def fails() -> Any:
        raise StoreUnavailable("gone")

    def later(*arguments: Any) -> None:
        monkeypatch.setattr(sessions, "_known", fails)
        given(*arguments)

    monkeypatch.setattr(sessions, "set_cookies", later)
    response = browser.get("/threads", Accept="application/json")
    assert response.status_code == 200
    assert "__Host-sluice=" in response.headers["Set-Cookie"]
    refused(browser.get("/threads", Accept="application/json"), 503, "store_unavailable")


# Settings


def test_without_a_page_there_is_nothing_at_its_addresses(open_place: Open) -> None:
    place = open_place(page="off")
    for who in ({}, {"Authorization": f"Bearer {place.ana.text}"}):
        refused(place.browser().get("/", **who), 404, "not_found")
        refused(place.browser().get("/sign-in", **who), 404, "not_found")
        refused(place.browser().post("/sign-out", **who), 404, "not_found")
        refused(place.browser().sign_in(place.ana.text), 404, "not_found")


def test_get_stream_can_be_switched_off(open_place: Open) -> None:
    place = open_place(stream_get="off")
    response = place.browser().get(
        "/stream?prompt=hi", Authorization=f"Bearer {place.ana.text}", Accept="application/json"
    )
    refused(response, 404, "not_found")


def test_with_a_key_get_stream_works_from_anywhere_but_another_sites_page(place: Place) -> None:
    bearer = {"Authorization": f"Bearer {place.ana.text}", "Accept": "*/*"}
    browser = place.browser()
    assert browser.get("/stream?prompt=hi", **bearer).status_code == 200
    for said in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "https://evil.test/x"},
    ):
        assert browser.get("/stream?prompt=hi", **bearer | said).status_code == 403


@pytest.mark.parametrize("page", ["private", "public"])
def test_in_the_open_mode_nobody_signs_in(page: str) -> None:
    with pytest.raises(SettingsError, match="PAGE"):
        Settings(page=page, auth="open")


def test_a_short_secret_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        Settings(secret_key=("short",))


def test_the_open_mode_is_as_it_was() -> None:
    app = create_app(FAST)
    browser = Browser(app, LOOPBACK)
    page = browser.get("/")
    assert page.status_code == 200
    assert 'name="csrf"' not in page.text
    assert browser.cookie("visitor")
    assert browser.post("/", {"prompt": "hello", "thread": "t1"}).status_code == 303
    assert browser.get("/sign-in").status_code == 404
    app.extensions["streams"].drain(0, 0)
    app.extensions["streams"].close()
