"""Where a request stands in a trace, by the letter of W3C's Trace Context."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import traces
from streaming.traces import begin, parent_of, state_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture(autouse=True)
def _nowhere() -> Any:
    yield
    traces.enter(None)
    traces.sample_by(lambda trace_id: False)


def test_what_a_caller_says_is_gone_on_with_under_a_new_id() -> None:
    trace = begin([GOOD], ["rojo=1,congo=2"], "req_1")
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, SPAN, True)
    assert trace.span_id not in (SPAN, "")
    headers: dict[str, str] = {}
    traces.enter(trace)
    traces.write(headers, with_request_id=True)
    assert headers == {
        "traceparent": f"00-{TRACE}-{trace.span_id}-01",
        "tracestate": "rojo=1,congo=2",
        "x-request-id": "req_1",
    }


def test_without_a_caller_a_new_trace_begins() -> None:
    first, second = begin(), begin()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-02", first.traceparent)
    assert first.trace_id != second.trace_id
    assert first.parent_id == first.state == ""


def test_a_new_trace_is_sampled_if_somebody_records_it() -> None:
    traces.sample_by(lambda trace_id: True)
    assert begin().traceparent.endswith("-03")


def test_a_sibling_has_an_id_of_its_own_under_the_same_parent() -> None:
    trace = begin([GOOD])
    sibling = trace.sibling()
    assert sibling.span_id != trace.span_id
    assert (sibling.trace_id, sibling.parent_id) == (TRACE, SPAN)


def test_a_request_that_says_where_it_stands_is_left_alone() -> None:
    traces.enter(begin([GOOD]))
    headers = {"traceparent": "its own"}
    traces.write(headers)
    assert headers == {"traceparent": "its own"}


def test_outside_of_a_request_nothing_is_written() -> None:
    headers: dict[str, str] = {}
    traces.write(headers)
    assert headers == {}


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        (GOOD, 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f" 00-{TRACE}-{SPAN}-01\t", 1),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", 1),
    ],
)
def test_what_is_well_formed_is_taken(said: str, flags: int) -> None:
    assert parent_of([said]) == (TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"{GOOD},{GOOD}",
        f"０0-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_malformed_begins_a_new_trace(said: str) -> None:
    assert parent_of([said]) is None
    trace = begin([said], ["rojo=1"])
    assert (trace.parent_id, trace.state) == ("", "")


def test_two_parents_are_none() -> None:
    assert parent_of([GOOD, GOOD]) is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ""),
        (["foo=1"], "foo=1"),
        (["foo=1 ,\tbar=2"], "foo=1,bar=2"),
        (["foo=1", "bar=2"], "foo=1,bar=2"),
        (["foo=1,,bar=2,"], "foo=1,bar=2"),
        (["a@b=1,0t@v=2"], "a@b=1,0t@v=2"),
        (["foo=a b~!"], "foo=a b~!"),
        (["z" * 256 + "=1"], "z" * 256 + "=1"),
    ],
)
def test_a_state_is_passed_on_as_it_is(said: list[str], kept: str) -> None:
    assert state_of(said) == kept


@pytest.mark.parametrize(
    "said",
    [
        "foo",
        "foo=",
        "=1",
        "FOO=1",
        "0foo=1",
        "foo =1",
        "foo=1,foo=2",
        "foo=a=b",
        "foo=é",
        "foo=a\nb",
        "foo=a\r\nx-forged: 1",
        "foo@=1",
        "@v=1",
        "a@" + "v" * 15 + "=1",
        "z" * 257 + "=1",
        "foo=" + "v" * 257,
        ",".join(f"k{place}=1" for place in range(33)),
    ],
)
def test_a_malformed_state_is_left_out_and_the_parent_kept(said: str) -> None:
    assert state_of([said]) == ""
    trace = begin([GOOD], [said])
    assert (trace.trace_id, trace.state) == (TRACE, "")


def test_a_long_state_is_cut_between_its_members() -> None:
    members = [f"k{place}={'v' * 60}" for place in range(20)]
    kept = state_of([",".join(members)])
    assert len(kept) <= 512
    assert kept == ",".join(members[: len(kept.split(","))])


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=5))
def test_no_header_breaks_anything_or_gets_through_unchecked(parent: str, states: list[str]) -> None:
    trace = begin([parent], states)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", trace.traceparent)
    kept = state_of(states)
    assert kept.isascii()
    assert kept.isprintable()
