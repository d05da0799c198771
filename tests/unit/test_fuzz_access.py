"""What proves who somebody is, made up or changed: taken as it was given out, or not at all."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from flask import Flask, g
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous.encoding import base64_decode

from streaming.errors import NotAuthenticated, SettingsError
from streaming.keyring import Issued, Keyring, entry_of, make, read_entries
from streaming.keys.memory import MemoryKeys
from streaming.web import _sign_in_page
from streaming.web._access import Access
from streaming.web._sessions import SESSION, VISITOR, Session, Sessions
from tests import fuzz_places
from tests.fuzz_places import fixture_of
from tests.fuzzing import HARMS, TEXTS, as_header, attempt, fuzzed, harmed, json_values, request_of

ORIGIN = "https://sluice.test"


class Door(NamedTuple):
    """A service that lets in who has a key, and what it gave to one who did."""

    app: Flask
    access: Access
    sessions: Sessions
    issued: Issued
    cookie: str
    token: str
    visitor: str
    """The cookie of somebody without a key."""


@contextmanager
def open_door() -> Iterator[Door]:
    with fuzz_places.open_app(auth="keys", page="public") as app:
        access: Access = app.extensions["access"]
        issued = access.keys.issue(("run",), "Ana")
        client = app.test_client()
        said = {"Origin": ORIGIN, "Accept": "application/json"}
        signed_in = client.post("/sign-in", base_url=ORIGIN, data={"key": issued.text}, headers=said)
        other = app.test_client()
        other.get("/", base_url=ORIGIN)
        cookies = [
            browser.get_cookie(f"__Host-{name}", domain="sluice.test")
            for browser, name in ((client, SESSION), (other, VISITOR))
        ]
        mine, visitors = (found.value if found else "" for found in cookies)
        token = signed_in.json["csrf"]
        assert mine
        assert visitors
        yield Door(app, access, app.extensions["sessions"], issued, mine, token, visitors)


fuzz_places.PLACES["door"] = open_door
door = fixture_of("door")


def asked(door: Door, headers: dict[str, str], **more: Any) -> Any:
    return request_of(door.app, headers, base_url=ORIGIN, **{"path": "/", **more})


@fuzzed(100)
@given(HARMS, st.sampled_from(["session", "visitor"]), st.sampled_from(["", "a=b; ", "=; ", '"', ";;"]))
def test_a_cookie_says_what_it_was_given_to_say_or_nothing(
    door: Door, harms: list[Any], kind: str, before: str
) -> None:
    given, name = (door.cookie, SESSION) if kind == "session" else (door.visitor, VISITOR)
    text = harmed(given, harms)
    whole = msgspec.convert(door.sessions._serializer(name).loads(given), Session)

    # Not of the page itself, which makes a visitor of whoever has no cookie.
    with asked(door, {"Cookie": f"{before}__Host-{name}={text}"}, path="/threads"):
        found = door.sessions.authenticate(current())
        if text == given and before != '"':
            assert found is not None
        if found is not None:
            assert g.session == whole
            assert found.id == (f"key_{door.issued.key.id}" if whole.key else f"visitor_{whole.id}")


def current() -> Any:
    from flask import request

    return request


# Numbers that a year, and a sum with it, cannot hold too.
PAYLOADS = st.one_of(
    st.tuples(
        st.one_of(TEXTS, st.none()),
        st.one_of(st.sampled_from([0, -1, 2**53, 2**70, 10**400, 1.5, True]), st.integers()),
        TEXTS,
        st.one_of(TEXTS, json_values(TEXTS)),
    ),
    json_values(TEXTS),
)


@fuzzed(100)
@given(PAYLOADS, st.sampled_from([SESSION, VISITOR]), st.booleans())
def test_what_was_signed_of_another_shape_is_nobody(
    door: Door, payload: Any, name: str, as_form: bool
) -> None:
    found = signed_as(door, name, payload, as_form)
    assert found is None or found.kind == "visitor"


def signed_as(door: Door, name: str, payload: Any, as_form: bool = False) -> Any:
    """Return who has a cookie that this service signed, and that says this."""
    signer = door.sessions._serializer(name).make_signer()
    text = signer.sign(base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=")).decode()
    method, path = ("POST", "/") if as_form else ("GET", "/threads")
    with asked(door, {"Cookie": f"__Host-{name}={text}", "Origin": ORIGIN}, method=method, path=path):
        return door.sessions.authenticate(current())


@fuzzed(100)
@given(HARMS, st.sampled_from(["form", "empty"]))
def test_a_form_is_taken_with_its_own_token_only(door: Door, harms: list[Any], kind: str) -> None:
    token = harmed(door.token, harms) if kind == "form" else harmed("", harms)
    sent = {"Cookie": f"__Host-{SESSION}={door.cookie}", "Origin": ORIGIN}
    with asked(door, sent, method="POST", data={"csrf": token}):
        found, refused = attempt(lambda: door.sessions.authenticate(current()))
    if refused is not None:
        assert refused.code == "csrf"
        assert refused.param == "csrf"
        assert token != door.token
        return
    assert found is not None
    assert base64_decode(token) == base64_decode(door.token)


@fuzzed(150)
@given(HARMS, TEXTS)
def test_a_key_is_known_by_the_whole_of_its_text(door: Door, harms: list[Any], other: str) -> None:
    for text in (harmed(door.issued.text, harms), other):
        found, refused = attempt(lambda text=text: door.access.keys.check(text), NotAuthenticated)
        if refused is not None:
            assert refused.code == "invalid_key"
            assert text != door.issued.text
            assert door.issued.text not in str(refused)
        else:
            assert text == door.issued.text
            assert found == door.issued.key


SCHEMES = st.sampled_from(["Bearer", "bearer", "BEARER", "Basic", "", "Bearer:", "\x0bBearer", "Bearer\t"])


@fuzzed(150)
@given(SCHEMES, st.sampled_from([" ", "  ", "\t", "", " \x85", "\xa0"]), HARMS, st.one_of(st.none(), TEXTS))
def test_no_authorization_lets_in_who_has_no_key(
    door: Door, scheme: str, space: str, harms: list[Any], other: str | None
) -> None:
    text = harmed(door.issued.text, harms) if other is None else other
    with asked(door, {"Authorization": f"{scheme}{space}{text}"}, path="/streams", method="POST"):
        found, refused = attempt(lambda: door.access.identify(current()), NotAuthenticated)
    assert refused is None or refused.code == "invalid_key"
    if found is not None:
        assert found.id == f"key_{door.issued.key.id}"
        assert text.strip() == door.issued.text


KEY = make(("run",), "Ana")
FIELDS = st.sampled_from(
    "id hash scopes created name expires revoked previous_hash previous_until owner limits x".split()
)
ENTRIES = st.one_of(
    HARMS.map(lambda harms: harmed(entry_of(KEY.key), harms)),
    st.builds(
        lambda changed: {**msgspec.to_builtins(KEY.key), **changed},
        st.dictionaries(FIELDS, json_values(FIELDS), max_size=3),
    ).map(lambda fields: written(json.dumps(fields).encode())),
    json_values(FIELDS).map(lambda value: written(json.dumps(value).encode())),
    st.one_of(st.binary(max_size=60), st.integers(1, 3000).map(lambda depth: b'{"limits":' * depth)).map(
        lambda body: written(body)
    ),
    TEXTS,
)


def written(body: bytes) -> str:
    return f"{KEY.key.id}.{base64.urlsafe_b64encode(body).decode().rstrip('=')}"


@fuzzed(150)
@given(st.lists(ENTRIES, max_size=2))
def test_a_key_of_the_settings_is_one_or_a_sentence(entries: list[str]) -> None:
    found, error = attempt(lambda: read_entries(entries), SettingsError)
    if error is not None:
        assert str(error).startswith("API_KEYS: ")
        assert not any(len(entry) > 12 and entry in str(error) for entry in entries)
        return
    assert read_entries([entry_of(key) for key in found]) == found
    keyring = Keyring(MemoryKeys(), found)
    for key in found:
        it, refused = attempt(lambda: keyring.check(KEY.text), NotAuthenticated)
        if refused is not None:
            assert refused.code in ("invalid_key", "key_expired", "key_revoked")
        else:
            assert it.id == key.id


@fuzzed(100)
@given(
    st.one_of(
        TEXTS,
        st.lists(
            st.sampled_from(
                [
                    *(
                        "thread=",
                        "stream=",
                        "next=",
                        "after=",
                        "&",
                        "=",
                        "?",
                        "#",
                        "//evil",
                        "https://evil",
                        "/",
                    ),
                    *("%0d%0a", "%2f", "%", "\r\n", "\\", "javascript:", ";", "+", "%ff", "\x00", "@evil"),
                ]
            ),
            max_size=8,
        ).map("".join),
    )
)
def test_who_signs_in_comes_back_to_the_page_and_nowhere_else(query: str) -> None:
    kept = _sign_in_page.kept(query)
    assert kept == "" or kept.startswith("?")
    assert kept.isascii()
    assert kept.isprintable()
    assert not set(kept) & set(" #\\\"'<>")
    assert _sign_in_page.kept(kept) == kept


FIELDS_OF_A_KEY = msgspec.to_builtins(KEY.key)


@pytest.mark.parametrize(
    "body",
    [
        b'{"limits":' * 100_000,
        json.dumps(FIELDS_OF_A_KEY | {"hash": "é"}).encode(),
        json.dumps(FIELDS_OF_A_KEY | {"previous_hash": "é"}).encode(),
        json.dumps(FIELDS_OF_A_KEY | {"hash": ""}).encode(),
    ],
    ids=["nested", "a hash of letters", "an earlier hash of letters", "no hash"],
)
def test_an_entry_that_could_not_be_looked_up_is_refused_at_the_start(body: bytes) -> None:
    with pytest.raises(SettingsError, match="entry 1 is not one"):
        read_entries([written(body)])


@pytest.mark.parametrize("payload", ["\ude00x", ["a", 10**400, "", ""], ["a", -(10**400), "", ""]])
def test_what_no_session_can_hold_is_nobody(door: Door, payload: Any) -> None:
    assert signed_as(door, SESSION, payload) is None


def test_a_text_is_sent_as_a_server_decodes_it() -> None:
    assert as_header("é") == "Ã©"
