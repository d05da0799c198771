"""What a run used, as it is added to an account."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from streaming import tokens
from streaming.eventlogs import Spent
from streaming.events import Done, Error
from streaming.tally import Tally
from streaming.upstreams import Price

MOST_COUNTED = 10**9
"""An upstream that says more tokens than this of one answer is not believed."""
MOST_COST_NANO = 10**15


def today(now: float | None = None) -> str:
    """Return the day of accounts: that of UTC.

    >>> today(1_700_000_000)
    '2023-11-14'
    """
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def spent_by(
    last: Done | Error,
    tally: Tally,
    prices: Mapping[str, Price],
    model: str = "",
    asked: Sequence[Any] = (),
    size_bytes: int = 0,
    seconds: float = 0.0,
) -> Spent:
    """Return what a run used that was ``asked`` these messages or items, and ends with ``last``.

    ``last`` has its metrics. The upstream's own count comes first; what it did not
    count is estimated, and says so. A run that failed before its first word used
    nothing that anybody knows of.
    """
    model = tally.model or model
    usage = last.usage or tally.usage
    tokens_in, tokens_out = tokens.given_tokens(usage), tokens.completion_tokens(usage)
    estimated = tokens_in is None or tokens_out is None
    if isinstance(last, Error) and last.error.type != "interrupted" and not tally.has_said:
        estimated = False
        tokens_in, tokens_out = tokens_in or 0, tokens_out or 0
    metrics = last.metrics
    if tokens_in is None:
        counted = metrics.prompt_tokens if metrics else None
        tokens_in = tokens.quick_estimate(asked) if counted is None else counted
    if tokens_out is None:
        tokens_out = metrics.tokens if metrics else tally.estimated_tokens
    tokens_in, tokens_out = min(tokens_in, MOST_COUNTED), min(tokens_out, MOST_COUNTED)
    return Spent(
        today(),
        model,
        tokens_in,
        tokens_out,
        estimated,
        size_bytes,
        round(max(0.0, seconds) * 1000),
        cost_nano(prices.get(model), tokens_in, tokens_out),
    )


def cost_nano(price: Price | None, tokens_in: int, tokens_out: int) -> int | None:
    """Return the cost in billionths, ``None`` without a price.

    >>> cost_nano(Price(0.25, 2), 1_000_000, 500_000)
    1250000000
    """
    if price is None:
        return None
    cost = round((tokens_in * price.tokens_in + tokens_out * price.tokens_out) * 1000)
    return min(cost, MOST_COST_NANO)
