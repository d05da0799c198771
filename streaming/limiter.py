"""Hold everybody to what they may use: the one place where a request is let in, or refused.

A refusal comes before any work: nothing was created, and no upstream asked. It
says in `Retry-After` when to ask again.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.strategies import SlidingWindowCounterRateLimiter

from streaming.accounts import NANO, Accounts, Used
from streaming.allowances import Allowance, allowance_of
from streaming.errors import BudgetSpent, RateLimited, StreamingError
from streaming.fitting import check_model, fit
from streaming.limits import Counters, Place
from streaming.limits.memory import MemoryWindows
from streaming.principals import OPEN, Principal
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.spending import today

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400
KEPT_SECONDS = 2.0
"""How old sums over everybody may be. What one principal used is never old."""
OPENAI = "api.openai.com"

_per_minute = functools.cache(RateLimitItemPerMinute)
_per_second = functools.cache(RateLimitItemPerSecond)


class Rate(NamedTuple):
    """How one stands with the creates of a minute."""

    limit: int
    remaining: int
    reset_seconds: float
    """Until one more is free; 0 where one is."""


class Admitted(NamedTuple):
    """A request that was let in."""

    prompt: Prompt
    """As it may be asked."""
    most_running: int
    """Of its owner's, to be checked as the stream is created; 0: no limit."""


class Limiter:
    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        accounts: Accounts,
        who: Callable[[], Principal] = lambda: OPEN,
    ) -> None:
        """``who`` returns the principal that asks."""
        self._settings = settings
        self._counters = counters
        self.accounts = accounts
        self._who = who
        self._windows = SlidingWindowCounterRateLimiter(counters.windows)
        self._polls = SlidingWindowCounterRateLimiter(MemoryWindows())
        self._unleft: list[tuple[Sequence[str], str]] = []
        self._by_kind: tuple[float, dict[str, Used]] = (float("-inf"), {})
        upstreams = {model.name: model.upstream for model in settings.catalogue}
        self._asked_by = {name: _output_field(upstream.base_url) for name, upstream in upstreams.items()}
        self._asked_otherwise = "max_tokens" if settings.is_demo else _output_field(settings.openai_base_url)

    def admit(self, prompt: Prompt, is_runnable: bool = False) -> Admitted:
        """Let a request for a run in. Raises `InvalidRequest`, `RateLimited` and `BudgetSpent`."""
        principal = self._who()
        allowance = self.allowance(principal)
        output_field = "" if is_runnable else self._asked_by.get(prompt.model, self._asked_otherwise)
        prompt = fit(prompt, allowance, output_field)
        self._check_budgets(principal, allowance)
        self._count_create(principal, allowance)
        return Admitted(prompt, allowance.running)

    def admit_question(self, model: str) -> None:
        """Let in what is no run: counted as a create, and its model must be one that may be named."""
        principal = self._who()
        allowance = self.allowance(principal)
        check_model(model, allowance)
        self._check_budgets(principal, allowance)
        self._count_create(principal, allowance)

    def may_name(self, model: str) -> bool:
        models = self.allowance().models
        return not models or model in models

    def allowance(self, principal: Principal | None = None) -> Allowance:
        return allowance_of(principal or self._who(), self._settings)

    def rate(self) -> Rate | None:
        """Return how who asks stands with the creates of this minute; ``None`` without a limit."""
        principal = self._who()
        most = self.allowance(principal).creates_per_minute
        if not most:
            return None
        reset, remaining = self._windows.get_window_stats(_per_minute(most), "creates", principal.id)
        return Rate(most, remaining, 0.0 if remaining else max(0.0, reset - time.time()))

    def check_poll(self) -> None:
        """Count a look at a stream. Raises `RateLimited`."""
        principal = self._who()
        most = self.allowance(principal).polls_per_second
        if most and not self._polls.hit(_per_second(most), "polls", principal.id):
            raise RateLimited(
                f"{most} polls a second is the most; follow the stream, or wait longer with ?wait=",
                code="polls",
                retry_after_seconds=1,
            )

    @contextmanager
    def reading(self, stream_id: str, worker_id: str) -> Iterator[None]:
        """Hold a reader's places meanwhile. Raises `RateLimited`."""
        principal = self._who()
        allowance = self.allowance(principal)
        places = [
            Place(key, most)
            for key, most in (
                (f"stream {stream_id}", allowance.readers_per_stream),
                (f"principal {principal.id}", allowance.readers),
            )
            if most
        ]
        if not places:
            yield
            return
        if full := self._counters.take(places, worker_id):
            most, of = dict(places)[full], full.partition(" ")[0]
            whose = "this stream" if of == "stream" else "you"
            raise RateLimited(
                f"too many readers: {whose} may have {most} at the same time",
                code="readers",
                retry_after_seconds=5,
            )
        try:
            yield
        finally:
            self._leave([place.key for place in places], worker_id)

    def expire(self) -> None:
        """Forget what is over."""
        unleft, self._unleft = self._unleft, []
        for keys, worker_id in unleft:
            self._leave(keys, worker_id)
        self._counters.expire()
        self.accounts.expire(today(time.time() - self._settings.usage_retention_days * DAY_SECONDS))

    def close(self) -> None:
        self._counters.close()

    # Inside

    def _leave(self, keys: Sequence[str], worker_id: str) -> None:
        try:
            self._counters.leave(keys, worker_id)
        except StreamingError as error:
            # Not for the reader to know; a place that is not left is gone for as long as this worker lives.
            logger.warning("a reader's places were not left, to be tried again", extra={"why": error.code})
            self._unleft.append((keys, worker_id))

    def _count_create(self, principal: Principal, allowance: Allowance) -> None:
        settings = self._settings
        windows = [(allowance.creates_per_minute, principal.id, "")]
        if principal.kind == "visitor":
            windows.append(
                (settings.visitors_creates_per_minute, "all visitors", " of all visitors together")
            )
        windows.append((settings.total_creates_per_minute, "all", " of everybody together"))
        for most, whose, said in windows:
            if most and not self._windows.hit(item := _per_minute(most), "creates", whose):
                raise RateLimited(
                    f"too many requests: at most {most} a minute{said}",
                    code="creates",
                    retry_after_seconds=self._reset_seconds(item, whose),
                )

    def _reset_seconds(self, item: RateLimitItem, whose: str) -> float:
        return max(1.0, self._windows.get_window_stats(item, "creates", whose).reset_time - time.time())

    def _check_budgets(self, principal: Principal, allowance: Allowance) -> None:
        settings = self._settings
        if allowance.tokens_per_day or allowance.bytes_per_day or allowance.cost_per_day:
            used = self.accounts.used(today(), principal.id)
            _check_budget(
                used, allowance.tokens_per_day, allowance.bytes_per_day, allowance.cost_per_day, "you"
            )
        visitors = settings.visitors_tokens_per_day, 0, settings.visitors_cost_per_day
        if principal.kind == "visitor" and any(visitors):
            _check_budget(self._used_by_kind().get("visitor", Used()), *visitors, "all visitors")
        total = settings.total_tokens_per_day, settings.total_bytes_per_day, settings.total_cost_per_day
        if any(total):
            used_by_all = [sum(each) for each in zip(*self._used_by_kind().values(), strict=True)]
            _check_budget(Used(*used_by_all), *total, "everybody together")

    def _used_by_kind(self) -> dict[str, Used]:
        asked_at, found = self._by_kind
        if time.monotonic() - asked_at > KEPT_SECONDS:
            found = self.accounts.used_by_kind(today())
            self._by_kind = time.monotonic(), found
        return found


def _check_budget(used: Used, tokens: int, size_bytes: int, cost: float, whose: str) -> None:
    for name, spent, most in (
        ("tokens", used.tokens, tokens),
        ("bytes", used.bytes, size_bytes),
        ("cost", used.cost_nano / NANO, cost),
    ):
        if most and spent >= most:
            raise BudgetSpent(
                f"the {name} of today {'is' if name == 'cost' else 'are'} used up: {whose} may have"
                f" {most:g} a day",
                code=f"{name}_per_day",
                retry_after_seconds=DAY_SECONDS - time.time() % DAY_SECONDS,
            )


def _output_field(base_url: str) -> str:
    """Return by which name an upstream's chat takes a limit: OpenAI's newer models refuse the old one."""
    return "max_completion_tokens" if not base_url or OPENAI in base_url else "max_tokens"
