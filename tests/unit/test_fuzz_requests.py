"""Requests under arbitrary content: a refusal that names what is wrong, or an answer; never a 500."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from streaming import shapes
from streaming.errors import BadCursor, InvalidRequest
from streaming.events import Cursor
from streaming.jsonlimits import MAX_DEPTH, is_too_deep
from streaming.streams import Streams
from streaming.websocket import Session
from tests.fuzz_places import fixture_of
from tests.fuzzing import TEXTS, fuzzed, json_values

JSON_BYTES = st.one_of(
    st.lists(
        st.sampled_from(
            [
                *(
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b":",
                    b",",
                    b'"',
                    b"\\",
                    b"\\u",
                    b"d800",
                    b"\\ud800",
                    b"null",
                    b"true",
                ),
                *(
                    b"NaN",
                    b"Infinity",
                    b"-0",
                    b"1e999",
                    b"-",
                    b"0x1",
                    b"01",
                    b".5",
                    b"\xff",
                    b"\xef\xbb\xbf",
                    b"true",
                ),
                *(b'"a"', b'"a":1', b"9" * 400, b" ", b"\0", b"//", b"/**/", b"'", b"[" * 100, b"]" * 100),
            ]
        ),
        max_size=20,
    ).map(b"".join),
    st.binary(max_size=60),
)
FIELDS = st.sampled_from(
    "prompt messages source model instructions params on_disconnect message_id timeout_seconds continues"
    " input thread follows replaces mode config role content type text image_url url stream stream_options"
    " temperature max_tokens n tools kwargs inputs user id stream_id after request"
    " previous_response_id params thread_id configurable base_url api_key dimensions title".split()
)
WORDS = st.sampled_from(
    "user system assistant chat demo text image_url input_text message function grace start follow ping stop"
    " x st_aaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbb threads.create threads.list items.list 1.2 file:///etc/passwd".split()
)
BODIES = json_values(FIELDS, st.one_of(WORDS, TEXTS, st.none(), st.booleans(), st.integers(), st.floats()))
ADDRESSES = st.sampled_from(
    [
        "/streams",
        "/threads",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/chatkit",
        "/chatkit/session",
        "/runnables/none/invoke",
        "/streams/st_x/cancel",
    ]
)
HEADERS = st.sampled_from(
    "Accept Last-Event-ID Idempotency-Key X-Request-Id Content-Type Origin Sec-Fetch-Site Cookie Range"
    " Accept-Encoding If-None-Match traceparent Authorization".split()
)
HEADER_VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "*/*;q=nan",
                "text/event-stream;q=1e9",
                "text/event-stream, application/json;q=0.5",
                ";q=",
                ",,,",
            ),
            *(
                "a/b;q=-1",
                "text/event-stream;q=0",
                "1.1",
                "0.0",
                "99.99",
                "1.2.3",
                "null",
                "none",
                "cross-site",
            ),
            *(
                "bytes=1-",
                "sluice_visitor=;=;",
                "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
                "Bearer ",
                "application/json",
            ),
        ]
    ),
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=30),
)
PARAMETERS = st.sampled_from(
    "format after buffer_tokens buffer_ms metrics wait events follow model source x".split()
)


client = fixture_of("client")


OF_THE_WHOLE = frozenset({"json", "too_deep", "too_large", "content_type", "origin"})
"""Codes of refusals that are about a request as a whole."""


def check(response: Any, asked: Any = None) -> None:
    """Check that an answer is none of a broken service, and that what it refuses of ``asked`` has a name."""
    response.close()
    if response.status_code < 400:
        return
    assert response.status_code in (501, 502, 503) or response.status_code < 500, response.text
    assert len(response.data) < 4096, "an error repeats what was sent"
    error = response.json["error"]
    assert error["message"]
    assert error["type"] != "internal_error"
    if response.status_code in (400, 422) and isinstance(asked, dict) and error["code"] not in OF_THE_WHOLE:
        assert error["param"] is not None, response.text


@fuzzed(300)
@given(JSON_BYTES)
def test_bytes_are_json_within_limits_or_a_refusal(text: bytes) -> None:
    try:
        found = shapes.decode(text, "the body")
    except InvalidRequest as refusal:
        assert refusal.code in ("json", "too_deep")  # noqa: PT017
        return
    assert not is_too_deep(found)
    assert json.loads(text) == found or b"e" in text.lower()


@fuzzed(50)
@given(st.integers(1, 3000), st.sampled_from([b"[", b'{"a":']))
def test_no_depth_breaks_the_reading(depth: int, bracket: bytes) -> None:
    text = bracket * depth + b"1" + (b"]" if bracket == b"[" else b"}") * depth
    try:
        shapes.decode(text, "the body")
    except InvalidRequest as refusal:
        assert refusal.code == "too_deep"  # noqa: PT017
        assert depth > MAX_DEPTH
        return
    assert depth <= MAX_DEPTH


@fuzzed(300)
@given(st.one_of(TEXTS, st.text("0123456789.-+e ٣", max_size=45)))
def test_a_text_is_a_cursor_in_its_one_form_or_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except BadCursor:
        return
    assert str(cursor) == (text or "0.0")


@fuzzed(60)
@given(ADDRESSES, st.one_of(BODIES.map(lambda body: json.dumps(body).encode()), JSON_BYTES))
def test_no_body_breaks_an_address(client: FlaskClient, address: str, body: bytes) -> None:
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    check(client.post(address, data=body, content_type="application/json"), asked)


@fuzzed(60)
@given(
    st.sampled_from(["/streams/st_x", "/streams", "/threads", "/", "/stream", "/v1/models", "/healthz"]),
    st.dictionaries(HEADERS, HEADER_VALUES, max_size=4),
    st.lists(st.tuples(PARAMETERS, st.one_of(TEXTS, HEADER_VALUES)), max_size=4),
)
def test_no_header_and_no_parameter_breaks_an_address(
    client: FlaskClient, address: str, headers: dict[str, str], query: list[tuple[str, str]]
) -> None:
    response = client.get(address, headers=headers, query_string=query)
    if address == "/":
        assert response.status_code < 500
        assert response.mimetype == "text/html"
        return
    check(response)


@fuzzed(200)
@given(st.one_of(BODIES.map(json.dumps), TEXTS))
def test_any_frame_is_answered_with_one_line_of_json(client: FlaskClient, frame: str) -> None:
    def refuse(asked: dict[str, Any]) -> Any:
        raise InvalidRequest("not here", code="wrong_value")

    streams: Streams = client.application.extensions["streams"]
    session = Session(streams, refuse, lambda reader: reader, lambda: "req_1")  # type: ignore[arg-type, return-value]
    answer = session.take(frame)
    assert len(answer.frame.splitlines()) == 1
    assert json.loads(answer.frame)["type"] in ("error", "pong", "stopped")


class Pairs(list[tuple[str, Any]]):
    """An object that may have a name twice."""


PAIRS: Any = st.recursive(
    st.one_of(st.integers(), TEXTS, st.just(":")),
    lambda inner: st.lists(st.tuples(st.sampled_from(["a", "b", ":", "a:"]), inner), max_size=3).map(Pairs),
    max_leaves=8,
)


def written(value: Any, escape: bool) -> str:
    if isinstance(value, Pairs):
        fields = (f"{written(name, escape)}: {written(inner, escape)}" for name, inner in value)
        return "{" + ", ".join(fields) + "}"
    text = json.dumps(value)
    return text.replace(":", "\\u003A") if escape and isinstance(value, str) else text


def repeats(value: Any) -> bool:
    if not isinstance(value, Pairs):
        return False
    names = [name for name, _ in value]
    return len(set(names)) < len(names) or any(repeats(inner) for _, inner in value)


@fuzzed(150)
@given(PAIRS, st.booleans())
def test_a_name_that_is_there_twice_is_always_noticed(value: Any, escape: bool) -> None:
    text = written(value, escape).encode()
    if repeats(value):
        with pytest.raises(InvalidRequest, match="twice"):
            shapes.decode(text, "the body")
    else:
        shapes.decode(text, "the body")
