"""Headers under arbitrary text: where a request stands in a trace, which page sent it, where it goes on."""

import re
from typing import Any

import pytest
from flask import Flask, Response, g
from hypothesis import given
from hypothesis import strategies as st

from streaming import traces
from streaming.errors import BadCursor
from streaming.events import CURSOR_PATTERN, Cursor
from streaming.traces import begin, parent_of, state_of
from streaming.web import _bodies, _cookies, _cors, _csrf
from streaming.web._responses import cursor_of
from tests.fuzz_places import fixture_of
from tests.fuzzing import ORIGINS, TEXTS, as_header, attempt, fuzzed, request_of

app = fixture_of("app")

HEX = "0123456789abcdef"
PARENTS = st.one_of(
    st.builds(
        "{}{}-{}-{}-{}{}".format,
        st.sampled_from(["", " ", "\t", "\x0b", "\n"]),
        st.sampled_from(["00", "01", "cc", "ff", "0", "0g"]),
        st.one_of(
            st.text(HEX, min_size=32, max_size=32), st.just("0" * 32), st.text(HEX + "AF٣", max_size=33)
        ),
        st.one_of(
            st.text(HEX, min_size=16, max_size=16), st.just("0" * 16), st.text(HEX + "AF٣", max_size=17)
        ),
        st.one_of(st.text(HEX, min_size=2, max_size=2), st.text(HEX + "A", max_size=3)),
        st.sampled_from(["", "", "", "-", "-x", "-\n", " ", "\n"]),
    ),
    TEXTS,
)
WORDS = st.one_of(
    st.sampled_from(
        ["a", "vendor", "1a@b", "a@1", "A", "@", "a" * 256, "a" * 257, "k*_/-", "ab@c" + "d" * 14]
    ),
    st.text("ab0@_*/-", max_size=5),
)
VALUES = st.one_of(
    st.sampled_from(["1", "00f067aa0ba902b7", " v", "v ", "a=b", "x" * 256, "x" * 257, "", "\x7f", "é"]),
    TEXTS,
)
STATES = st.lists(
    st.lists(
        st.one_of(st.builds("{}={}".format, WORDS, VALUES), st.sampled_from(["", " ", "\t", "x"])), max_size=6
    ).map(",".join),
    max_size=4,
)


@fuzzed(150)
@given(st.lists(PARENTS, max_size=2), STATES)
def test_a_traceparent_is_taken_as_it_is_or_a_new_trace_begins(said: list[str], states: list[str]) -> None:
    trace = begin(said, states)
    headers: dict[str, str] = {}
    traces.enter(trace)
    try:
        traces.write(headers)
    finally:
        traces.enter(None)

    assert re.fullmatch(r"00-(?!0+-)[0-9a-f]{32}-(?!0+-)[0-9a-f]{16}-0[0-3]", headers["traceparent"])
    assert parent_of([headers["traceparent"]]) == (trace.trace_id, trace.span_id, trace.flags)
    assert headers.get("tracestate", "") == trace.state
    if trace.parent_id:
        (only,) = said
        assert only.strip(" \t").split("-")[1:3] == [trace.trace_id, trace.parent_id]
    else:
        assert not trace.state, "a state without its parent is somebody else's"


@fuzzed(150)
@given(STATES)
def test_a_state_is_passed_on_as_it_came_or_not_at_all(said: list[str]) -> None:
    kept = state_of(said)

    assert state_of([kept]) == kept
    # However many headers it came in, it is one list.
    assert state_of([",".join(said)]) == kept
    assert state_of([member for header in said for member in header.split(",")]) == kept
    assert len(kept) <= traces.MOST_STATE_CHARS
    assert kept.isascii()
    assert kept.isprintable()
    came = [member.strip(" \t") for header in said for member in header.split(",") if member.strip(" \t")]
    members = kept.split(",") if kept else []
    assert members == came[: len(members)]
    assert len(members) <= traces.MOST_MEMBERS


@fuzzed(150)
@given(
    st.one_of(st.none(), ORIGINS),
    st.one_of(st.none(), ORIGINS),
    st.sampled_from([None, None, "same-origin", "none", "cross-site", "same-site", "", "x", " none"]),
    st.booleans(),
)
def test_only_a_page_of_this_origin_is_believed_whatever_it_says(
    app: Flask, origin: str | None, host: str | None, site: str | None, secure: bool
) -> None:
    said = {"Origin": origin, "Host": host, "Sec-Fetch-Site": site}
    sent = {name: value for name, value in said.items() if value is not None}
    context = request_of(app, sent, method="POST", base_url="https://localhost" if secure else None)
    with context:
        request = context.request
        loose, strict = refusal(_bodies.check_origin, request), refusal(_csrf.check_same_origin, request)
        assert loose in ("", "origin")
        assert strict in ("", "origin")
        if not strict and site in (None, "same-origin", "none"):
            assert not loose, "what is held to more is let in here too"
        if site:
            assert (not loose) == (site in ("same-origin", "none"))
        elif origin is None:
            assert not loose
            assert strict, "silence is no permission"
        elif not loose:
            # After the scheme there is this host and nothing else of another place.
            assert as_header(origin).lower().strip().partition("://")[2].startswith(request.host.lower())
        if not strict and origin is not None:
            assert as_header(origin) == request.host_url.rstrip("/")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://[x", "localhost"),  # what cannot be taken apart was an error of ours
        ("http://\u2028[DONE]", "localhost"),
        ("null", "a_b"),  # the name of such a host is "" to the framework, and so was that of "null"
        ("http://", "a_b"),
        ("file:///", "a_b:8000"),
    ],
)
def test_an_origin_that_names_no_place_is_another_one(app: Flask, origin: str, host: str) -> None:
    with request_of(app, {"Origin": origin, "Host": host}, method="POST") as context:
        assert refusal(_bodies.check_origin, context.request) == "origin"


def refusal(check: Any, request: Any) -> str:
    """Return the code of the refusal, "" for none."""
    _, error = attempt(lambda: check(request))
    if error is None:
        return ""
    assert error.status == 403
    code: str = error.code
    return code


@fuzzed(150)
@given(ORIGINS, st.booleans())
def test_a_cookie_is_only_where_nobody_else_can_plant_it(app: Flask, host: str, secure: bool) -> None:
    with request_of(app, {"Host": host}, base_url="https://localhost" if secure else None) as context:
        name = _cookies.name_of(context.request, "base")
        assert _cookies.read(context.request, "base") == ""
        if secure:
            assert name == "__Host-base"
        elif name:
            assert re.fullmatch(r"base-[0-9]{1,5}", name)
            said = as_header(host).lower()
            assert re.match(
                r"(?:[^@/?#]*@)?(?:(?:.*\.)?localhost|127\.|\[::1|\[::ffff:7f|\[::ffff:127\.|\[0)", said
            ), said


ALLOWED = ("https://app.example.com", "http://localhost:5173")


def cors_app() -> Flask:
    made = Flask(__name__)

    class Allowing:
        cors_origins = ALLOWED

    _cors.register(made, Allowing())  # type: ignore[arg-type]
    made.add_url_rule("/", "root", lambda: Response(str(g.get("cors_origin", ""))), methods=["GET", "POST"])
    return made


CORS = cors_app()


@fuzzed(200)
@given(
    st.one_of(ORIGINS, st.sampled_from(ALLOWED)),
    st.sampled_from(["GET", "POST", "OPTIONS"]),
    st.one_of(
        st.none(),
        TEXTS,
        st.lists(st.sampled_from(["authorization", "X-A", ", ", "\r\n", "*", "é"])).map("".join),
    ),
)
def test_only_exact_origins_are_let_in_and_nothing_else_is_repeated(
    origin: str, method: str, asking_for: str | None
) -> None:
    sent = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    if asking_for is not None:
        sent["Access-Control-Request-Headers"] = asking_for
    with request_of(CORS, sent, path="/", method=method):
        response = CORS.full_dispatch_request()
    said = response.headers.get("Access-Control-Allow-Origin")
    assert said == (origin if origin in ALLOWED else None)
    assert "Origin" in response.vary
    allowed = response.headers.get("Access-Control-Allow-Headers")
    assert allowed is None or (said and allowed == asking_for)
    assert "Access-Control-Allow-Credentials" not in response.headers
    for _, value in response.headers:
        assert value.isascii()
        assert value.isprintable()


CURSORS = st.one_of(
    st.builds("{}.{}".format, st.integers(0, 10**19), st.integers(0, 10**19)),
    st.sampled_from(
        ["", "0.0", "1.1", "01.1", "1.", ".1", "1.1 ", "+1.1", "٣.١", "1.1\n", "1.1,2.2", "null"]
    ),
    TEXTS,
)


@fuzzed(150)
@given(st.one_of(st.none(), CURSORS), st.lists(CURSORS, max_size=3))
def test_a_cursor_in_the_header_wins_and_what_is_none_is_refused(
    app: Flask, header: str | None, after: list[str]
) -> None:
    headers = {} if header is None else {"Last-Event-ID": header}
    with request_of(app, headers, [("after", each) for each in after]) as context:
        found, refused = attempt(lambda: cursor_of(context.request), BadCursor)
    if refused is not None:
        assert refused.param == "after"
        assert len(after) > 1 or not all(is_cursor(each) for each in [header or "", *after])
        return
    assert len(after) < 2
    assert all(is_cursor(each) for each in [header or "", *after])
    assert str(found) == (header or "".join(after) or "0.0")
    assert Cursor.parse(str(found)) == found


def is_cursor(text: str) -> bool:
    return not text or re.fullmatch(CURSOR_PATTERN, text, re.ASCII) is not None
