"""The fuzz tests' own checks, tried by the ten thousand: ``python -m tests.fuzz_by_hand 50000``.

Hypothesis takes milliseconds to think of a case. Here plain chance makes the
arguments, of the same fragments, and a case costs what the check costs. A case
that fails is printed, to be made a test of.
"""

import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from streaming.errors import ErrorInfo
from streaming.events import Done, Error, Event, Interrupt, Reasoning, Sources, Token, ToolCall, ToolResult
from tests import fuzzing
from tests.unit import (
    test_fuzz_event_streams,
    test_fuzz_formats,
    test_fuzz_markdown,
    test_fuzz_requests,
    test_fuzz_settings,
    test_fuzz_upstreams,
)

ODD_BYTES = [0, 9, 10, 11, 13, 32, 34, 58, 92, 123, 125, 0x7F, 0x80, 0xC3, 0xED, 0xEF, 0xFF]


class Chance:
    """Makes what the checks are given."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, strategy: Any) -> Any:
        return self._random.choice(strategy.elements)

    def some(self, strategy: Any, most: int) -> list[Any]:
        return [self.one(strategy) for _ in range(self._random.randint(0, most))]

    def cuts(self) -> list[int]:
        return [self._random.randint(0, 300) for _ in range(self._random.randint(0, 12))]

    def number(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def bytes(self, most: int) -> bytes:
        pick = self._random
        return bytes(
            pick.choice(ODD_BYTES) if pick.random() < 0.4 else pick.randrange(256)
            for _ in range(pick.randint(0, most))
        )

    def text(self) -> str:
        if self._random.random() < 0.4:
            return str(self.one(fuzzing.ODD_TEXTS))
        points = [self._random.choice((0x7F, 0x2FF, 0xD7FF, 0x10FFFF)) for _ in range(self.number(0, 12))]
        found = (self._random.randint(0, most) for most in points)
        return "".join(chr(point) for point in found if not 0xD800 <= point <= 0xDFFF)

    def json(self, names: Any, depth: int = 3, halves: bool = True) -> Any:
        way = self.number(0, 9 if depth else 6)
        if way > 7:
            return {self.one(names): self.json(names, depth - 1, halves) for _ in range(self.number(0, 4))}
        if way == 7:
            return [self.json(names, depth - 1, halves) for _ in range(self.number(0, 3))]
        odd = "\ud83d" if halves else "x"
        return self._random.choice(
            [None, True, False, 0, -1, 1.5, 2**53, odd, odd + "x", self.text(), self.text(), self.text()]
        )

    def stream(self) -> bytes:
        if self._random.random() < 0.3:
            return self.bytes(120)
        return b"".join(self.some(test_fuzz_event_streams.FRAGMENTS, 40))

    def chunk(self) -> bytes:
        names = test_fuzz_upstreams.NAMES
        streams = test_fuzz_upstreams.STREAMS
        way = self.number(0, 6)
        if way < 2:
            found: Any = self._random.choice(self._random.choice(list(streams.values())))
        elif way < 4:
            found = test_fuzz_upstreams.says(self.text())
        elif way == 4:
            found = test_fuzz_upstreams.chunk(self.json(names))
        elif way == 5:
            found = {
                "choices": [self.json(names) for _ in range(self.number(0, 2))],
                "usage": self.json(names),
            }
        else:
            found = self.json(names)
        return json.dumps(found).encode()

    def response_event(self) -> bytes:
        fields = test_fuzz_upstreams.FIELDS
        found = {self.one(fields): self.json(fields) for _ in range(self.number(0, 5))}
        kind = self.one(test_fuzz_upstreams.KINDS)
        if self.number(0, 1):
            found["delta"] = self.text()
        return json.dumps({**found, "type": kind}).encode()

    def event(self) -> Event:
        t, names = self.text, fuzzing.ODD_TEXTS
        make: Callable[[], Event] = self._random.choice(
            [
                lambda: Token(t()),
                lambda: Reasoning(t()),
                lambda: ToolCall(
                    t(), t(), {t(): self.json(names, 2, False)}, handled=bool(self.number(0, 1))
                ),
                lambda: ToolCall(t(), t(), None, t()),
                lambda: ToolResult(t(), t(), self.json(names, 2, False)),
                lambda: Interrupt(t(), self.json(names, 2, False)),
                lambda: Sources([]),
            ]
        )
        return make()

    def end(self) -> Event:
        if self.number(0, 1):
            return Done(self._random.choice(["stop", "length", "tool_calls", "cancelled"]), done=True)
        return Error(ErrorInfo(self.text(), "upstream_truncated", "x"), done=True)

    def environ(self) -> dict[str, str]:
        values = ["0", "-1", "1e999", "nan", "٣", "true", "auto", "http://a", "https://u:p@h/?k=1", "a=b:c"]
        return {
            self.one(test_fuzz_settings.NAMES): self._random.choice([*values, self.text()])
            for _ in range(self.number(0, 4))
        }

    def chunked(self) -> bytes:
        parts = [
            b"0",
            b"1",
            b"5",
            b"ff",
            b"\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b";",
            b"x",
            b" ",
            b"-1",
            b"_",
            b"\xb2",
        ]
        return b"".join(self._random.choice(parts) for _ in range(self.number(0, 20)))

    def json_bytes(self) -> bytes:
        parts = [
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b'"',
            b"\\u",
            b"d800",
            b"NaN",
            b"-0",
            b"1e999",
            b'"a":1',
            b"null",
        ]
        if self.number(0, 2) == 0:
            return self.bytes(60)
        return b"".join(self._random.choice(parts) for _ in range(self.number(0, 14)))


Arguments = Callable[[Chance], tuple[Any, ...]]
CHECKS: list[tuple[Any, Arguments]] = [
    (
        test_fuzz_event_streams.test_the_upstreams_decoder_hears_what_a_browser_would_however_it_is_cut,
        lambda c: (c.stream(), c.cuts()),
    ),
    (
        test_fuzz_event_streams.test_the_terminals_parser_hears_what_a_browser_would_however_it_is_cut,
        lambda c: (c.stream(), c.cuts()),
    ),
    (
        test_fuzz_event_streams.test_a_decoder_gives_out_nothing_above_its_limit,
        lambda c: (c.stream(), c.number(1, 40), c.cuts()),
    ),
    (
        test_fuzz_event_streams.test_a_frame_is_one_event_whatever_is_in_it,
        lambda c: (c.bytes(60), c.text(), c.text(), c.number(0, 10**6), c.cuts()),
    ),
    (
        test_fuzz_upstreams.test_chunks_become_events_or_a_typed_failure_and_the_short_cut_changes_nothing,
        lambda c: ([c.chunk() for _ in range(c.number(0, 6))],),
    ),
    (test_fuzz_upstreams.test_what_is_no_chunk_is_a_typed_failure, lambda c: (c.bytes(100),)),
    (
        test_fuzz_upstreams.test_events_of_a_response_become_events_or_a_typed_failure,
        lambda c: ([c.response_event() for _ in range(c.number(0, 6))],),
    ),
    (
        test_fuzz_upstreams.test_an_answer_means_the_same_however_the_network_cuts_it,
        lambda c: (
            [c.chunk() for _ in range(c.number(0, 6))],
            [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n: hb\n\n", b"\n\n", b"\r\n\n"],
            bool(c.number(0, 1)),
            c.cuts(),
        ),
    ),
    (
        test_fuzz_upstreams.test_a_chunked_body_is_the_same_however_it_is_cut,
        lambda c: ([c.bytes(50) + b"x" for _ in range(c.number(0, 6))], b";a=b", c.cuts()),
    ),
    (
        test_fuzz_upstreams.test_what_is_no_chunked_body_is_refused_alike_however_it_is_cut,
        lambda c: (c.chunked(), c.cuts()),
    ),
    (test_fuzz_requests.test_bytes_are_json_within_limits_or_a_refusal, lambda c: (c.json_bytes(),)),
    (
        test_fuzz_requests.test_a_text_is_a_cursor_in_its_one_form_or_refused,
        lambda c: (c.text() if c.number(0, 1) else "".join(c.some(_Of("0123456789.-+ "), 12)),),
    ),
    (test_fuzz_settings.test_any_environment_is_settings_or_one_sentence, lambda c: (c.environ(),)),
    (
        test_fuzz_formats.test_whatever_happens_each_format_tells_it_so_that_it_can_be_read,
        lambda c: ([c.event() for _ in range(c.number(0, 6))], c.end(), c.cuts(), bool(c.number(0, 1))),
    ),
    (
        test_fuzz_formats.test_the_text_is_the_same_in_every_format,
        lambda c: ([c.text() for _ in range(c.number(0, 8))], c.end()),
    ),
    (
        test_fuzz_markdown.test_any_text_becomes_harmless_html,
        lambda c: ("".join(c.some(test_fuzz_markdown.FRAGMENTS, 30)) + c.text(),),
    ),
]


class _Of:
    def __init__(self, elements: str) -> None:
        self.elements = elements


def main(cases: int, only: str = "", seed: int = 0) -> int:
    """Try each check so often; return how many failed."""
    failed = 0
    for test, arguments in CHECKS:
        if only not in test.__name__:
            continue
        chance, began = Chance(seed), time.monotonic()
        check = test.hypothesis.inner_test
        for number in range(cases):
            given = arguments(chance)
            try:
                check(*given)
            except Exception:
                failed += 1
                print(f"FAILED in case {number} with {given!r}")
                traceback.print_exc(limit=-2)
                break
        seconds = time.monotonic() - began
        print(f"{number + 1:7} cases {seconds:6.0f} s  {test.__name__}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:3]) > 0)
