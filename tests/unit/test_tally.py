"""What is counted of a run."""

import time
from typing import Any

import pytest

from streaming import tally
from streaming.events import Token


def metrics_with(usage: dict[str, Any] | None) -> Any:
    counted = tally.Tally()
    counted.start()
    counted.add([Token("a"), Token("b")])
    return counted.metrics(usage)


@pytest.mark.parametrize(
    ("usage", "tokens", "estimated"),
    [
        ({"completion_tokens": 40}, 40, False),
        ({"output_tokens": 41, "total_tokens": 50}, 41, False),
        ({"completion_tokens": None, "output_tokens": 0}, 0, False),
        ({"output_tokens": "many"}, 2, True),
        ({"output_tokens": True}, 2, True),
        ({}, 2, True),
        (None, 2, True),
    ],
)
def test_the_upstreams_count_is_taken_by_either_name(
    usage: dict[str, Any] | None, tokens: int, estimated: bool
) -> None:
    metrics = metrics_with(usage)

    assert (metrics.tokens, metrics.estimated) == (tokens, estimated)


def test_a_rate_needs_two_tokens_and_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counted = tally.Tally()
    counted.start()
    counted.add([Token("a")])
    now[0] += 2

    assert counted.metrics({"output_tokens": 1}).tokens_per_second is None
    assert counted.metrics({"output_tokens": 21}).tokens_per_second == 10.0
