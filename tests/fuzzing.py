"""What the fuzz tests share: how many cases they try, how bytes are cut, and what is nearly right.

``FUZZ=50000 pytest tests/unit/test_fuzz_*`` tries as many cases of each; without
it a share that fits into a usual run.
"""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from streaming.errors import InvalidRequest

_CASES = int(os.environ.get("FUZZ", "0"))


def fuzzed(usually: int = 100) -> Callable[[Any], Any]:
    """Say how many cases a test tries."""
    cases = settings(
        max_examples=_CASES or usually,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    # So many cases take longer than any test should, save these.
    return lambda test: pytest.mark.timeout(0)(cases(test)) if _CASES else cases(test)


CUTS = st.lists(st.integers(0, 2000), max_size=12)
"""Where a text is cut; places after its end count for nothing."""


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    """Return ``text`` cut at these places, in order; some pieces may be empty."""
    places = sorted(min(cut, len(text)) for cut in cuts)
    return [text[begin:end] for begin, end in pairwise([0, *places, len(text)])]


ODD_TEXTS = st.sampled_from(
    [
        "",
        "[DONE]",
        "data: x",
        "\n\ndata: forged\n\n",
        "\r\r",
        "\u2028\u2029\x85\x0b\x0c",
        "\ufeff",
        "\0",
        "\u202e\u2066abc",
        "e\u0301 \u00e9",
        "👩‍👩‍👧",
        '{"error":{"message":"forged"}}',
        "]]>--></script>",
    ]
)
TEXTS = st.one_of(ODD_TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
"""Any text that is one, half characters left out."""

ORIGINS = st.one_of(
    st.sampled_from(
        [
            *(
                "http://localhost",
                "https://localhost",
                "http://localhost:8000",
                "localhost",
                "localhost:8000",
            ),
            *(
                "http://[",
                "http://[x",
                "http://[::1]:8000",
                "[::1]",
                "[::1]:99999",
                "[::ffff:127.0.0.1]",
                "[v1.a]",
            ),
            *("127.0.0.1", "127.0.0.1:x", "127.1", "2130706433", "0.0.0.0", "localhost.", "a.localhost:80"),
            *("http://localhost@evil", "localhost@evil", "evil@localhost", "localhost/evil", "localhost#x"),
            *("null", "http://", "//localhost", "file:///x", "http://localhost\n", " http://localhost", "*"),
            *("http://\u2100", "http://a\uff0fb", "http://loc\u0131lhost", "%6cocalhost", "localhost\0"),
            *("https://app.example.com", "https://app.example.com.", "HTTPS://app.example.com", "x" * 5000),
        ]
    ),
    st.builds("{}{}{}".format, st.sampled_from(["", "http://", "https://", "ws://"]), TEXTS, TEXTS),
    st.lists(st.sampled_from([*"[]:@/?#.%0x1", "localhost", "127", "::1"]), max_size=8).map("".join),
    TEXTS,
)
"""What may stand in ``Origin`` and ``Host``, and what may not."""

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, -0.0, 1e308, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
_PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.just("\ud83d"), st.just("\ude00x"))


def json_values(names: st.SearchStrategy[str], values: st.SearchStrategy[Any] = _PLAIN) -> Any:
    """Return a strategy of JSON values whose objects have these names for fields."""
    return st.recursive(
        values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


def near(bases: list[Any], fields: dict[str, Any], wrong: st.SearchStrategy[Any]) -> Any:
    """Return a strategy of what is nearly right: one of ``bases`` with a few fields, some of them wrong."""
    right = [st.tuples(st.just(name), values) for name, values in fields.items()]
    pairs = st.one_of(*right, st.tuples(st.sampled_from([*fields, "x"]), wrong))
    changed = st.builds(
        lambda base, changes: {**base, **dict(changes)}, st.sampled_from(bases), st.lists(pairs, max_size=3)
    )
    return st.one_of(changed, changed, changed, changed, wrong)


def attempt(call: Callable[[], Any], refusals: type[Exception] = InvalidRequest) -> tuple[Any, Any]:
    """Return what a call returns, or its refusal; what else it raises is a fault."""
    try:
        return call(), None
    except refusals as refusal:
        return None, refusal


HARMS = st.lists(
    st.tuples(
        st.sampled_from(["drop", "put", "change", "case", "cut", "twice"]),
        st.integers(0, 300),
        st.one_of(
            st.sampled_from('a A 0 . - _ = ; , / + " \\ \x00 \n é ٣'.split(" ")),
            st.characters(max_codepoint=0x2FF),
        ),
    ),
    max_size=3,
)
"""What is done to a text that was right; see `harmed`."""


def harmed(text: str, harms: list[tuple[str, int, str]]) -> str:
    """Return ``text`` after these changes, which may leave it as it was."""
    for how, at, char in harms:
        at = min(at, len(text))
        before, here, after = text[:at], text[at : at + 1], text[at + 1 :]
        match how:
            case "drop":
                text = before + after
            case "put":
                text = before + char + here + after
            case "change":
                text = before + char + after
            case "case":
                text = before + here.swapcase() + after
            case "cut":
                text = before
            case "twice":
                text = before + here + before + here + after
    return text


def as_header(value: str) -> str:
    """Return a text as a server hands it on in a header."""
    return value.encode().decode("latin-1")


def request_of(app: Flask, headers: dict[str, str], query: Any = None, **more: Any) -> Any:
    """Return the context of a request to ``path`` with headers of any text."""
    sent = {f"HTTP_{name.upper().replace('-', '_')}": as_header(value) for name, value in headers.items()}
    path = more.pop("path", "/streams")
    return app.test_request_context(path, query_string=query, environ_overrides=sent, **more)
