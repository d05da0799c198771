"""How often an address may do something, in this worker.

For what nobody has to sign in for. An address is a network of IPv6, since one
household has as many addresses as it likes.
"""

import ipaddress
import math
import time

from flask import Request
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from streaming.errors import RateLimited

IPV6_PREFIX = 64
ALL = "all"


class Attempts:
    """Counts what one address, and all together, did within a window that moves."""

    def __init__(self, what: str, each: RateLimitItem, everybody: RateLimitItem) -> None:
        """``what`` is said in the refusal: "too many <what>"."""
        self._what = what
        self._each = each
        self._everybody = everybody
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, request: Request) -> None:
        """Raise `RateLimited` where no more is allowed now."""
        for limit, who in ((self._each, network_of(request)), (self._everybody, ALL)):
            if not self._limiter.test(limit, who):
                free_at = self._limiter.get_window_stats(limit, who).reset_time
                raise RateLimited(
                    f"too many {self._what}: wait a moment",
                    code="too_many_attempts",
                    retry_after_seconds=max(1.0, math.ceil(free_at - time.time())),
                )

    def count(self, request: Request) -> None:
        self._limiter.hit(self._each, network_of(request))
        self._limiter.hit(self._everybody, ALL)


def network_of(request: Request) -> str:
    """Return what tells one household from another; "" where there is no address, as on a unix socket."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
