"""How often an address may do something, over all workers.

For what nobody has to sign in for. An address is a network of IPv6, since one
household has as many addresses as it likes.
"""

import ipaddress
import math
import time
from collections.abc import Callable

from flask import Request
from limits import RateLimitItem
from limits.storage import Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from streaming.errors import RateLimited

IPV6_PREFIX = 64
ALL = "all"


class Attempts:
    """Counts what one address, and all together, did within a window that moves.

    Attempts that come at the same time may each be let in before any is counted: what is
    counted is a nuisance, and not what keeps a key from being guessed.
    """

    def __init__(
        self, what: str, each: RateLimitItem, everybody: RateLimitItem, windows: Callable[[], Storage]
    ) -> None:
        """``what`` is said in the refusal: "too many <what>". ``windows`` returns where it is counted."""
        self._what = what
        self._each = each
        self._everybody = everybody
        self._windows = windows

    @property
    def _limiter(self) -> SlidingWindowCounterRateLimiter:
        return SlidingWindowCounterRateLimiter(self._windows())

    def check(self, request: Request) -> None:
        """Raise `RateLimited` where no more is allowed now, and `StoreUnavailable`. Blocks."""
        for limit, who in ((self._each, network_of(request)), (self._everybody, ALL)):
            if not self._limiter.test(limit, self._what, who):
                free_at = self._limiter.get_window_stats(limit, self._what, who).reset_time
                raise RateLimited(
                    f"too many {self._what}: wait a moment",
                    code="too_many_attempts",
                    retry_after_seconds=max(1.0, math.ceil(free_at - time.time())),
                )

    def count(self, request: Request) -> None:
        """Raises `StoreUnavailable` and `StoreFull`. Blocks."""
        self._limiter.hit(self._each, self._what, network_of(request))
        self._limiter.hit(self._everybody, self._what, ALL)


def network_of(request: Request) -> str:
    """Return what tells one household from another; "" where there is no address, as on a unix socket."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
