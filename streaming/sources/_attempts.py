"""Ask until somebody answers: again, then elsewhere, but never after the first of the model's words.

A request is made again on its own upstream while the fault may pass, then on
the upstreams of its fallbacks. All that is bounded in time, and ends as soon as
the run is stopped.
"""

import logging
import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Literal, Protocol

from streaming import scope
from streaming.errors import UpstreamFailure, UpstreamRejected
from streaming.events import Event, Status
from streaming.settings import Settings
from streaming.sources import Batches, Prompt
from streaming.sources._routes import Route

logger = logging.getLogger(__name__)

RETRIES_WITHIN_SECONDS = 20.0
# So long a wait is only worth it where there is nobody else to ask.
LONGEST_WAIT_BEFORE_FALLBACK_SECONDS = 2.0

Doing = Literal["thinking", "retrying", "fallback"]


class Attempt(Protocol):
    """One request to one upstream."""

    @property
    def said_something(self) -> bool:
        """Some of the answer was shown, so that the request can't be made again."""
        ...

    def status(self, status: Doing, model: str = "") -> Status: ...

    def events(self, route: Route, prompt: Prompt) -> Batches: ...


def answer(
    routes: Sequence[Route], prompt: Prompt, settings: Settings, attempt: Callable[[float], Attempt]
) -> Batches:
    """Yield the answer of the first route that gives one.

    ``attempt`` makes an attempt, given when the run began (``time.monotonic``).
    Raises the fault that cut off an answer; where none began, the first that may
    pass if the caller asks again, else the last. No request begins later than
    ``FIRST_TOKEN_TIMEOUT_SECONDS`` and 20 seconds after the first.
    """
    began = time.monotonic()
    last_begin = began + settings.first_token_timeout_seconds + RETRIES_WITHIN_SECONDS
    failures: list[UpstreamFailure] = []
    for place, route in enumerate(routes):
        others = routes[place + 1 :]
        failure = yield from _ask(route, prompt, settings, attempt, began, bool(others))
        if failure is None:
            return
        failures.append(failure)
        if not others or not _another_may_do(failure) or time.monotonic() > last_begin:
            break
        logger.warning(
            "asking another model",
            extra={
                "failed": route.name,
                "upstream": route.upstream.name,
                "why": failure.type,
                "code": failure.code,
                "asking": others[0].name,
            },
        )
        yield [attempt(began).status("fallback", others[0].name)]
    raise next((failure for failure in failures if failure.retryable), failures[-1])


def _ask(
    route: Route,
    prompt: Prompt,
    settings: Settings,
    attempt: Callable[[float], Attempt],
    began: float,
    has_others: bool,
) -> Generator[Sequence[Event], None, UpstreamFailure | None]:
    """Ask one route, again while that may help; return why it gave no answer.

    Raises the fault that cut off an answer.
    """
    run = scope.current()
    retries_left = settings.upstream_retries
    pause = 0.1
    while True:
        request = attempt(began)
        try:
            yield from request.events(route, prompt)
            return None
        except scope.Stopped as stop:
            if not isinstance(stop.error, UpstreamFailure):
                raise
            failure = stop.error
        except UpstreamFailure as error:
            failure = error
        if run.stopped:  # while it failed: nobody is to be asked any more
            raise run.stopped
        run.relax()  # what was expected of this request is not of the wait for the next
        if request.said_something:
            raise failure
        wait = failure.retry_after_seconds or 0.0
        too_long = has_others and wait > LONGEST_WAIT_BEFORE_FALLBACK_SECONDS
        late = time.monotonic() - began > RETRIES_WITHIN_SECONDS
        if not failure.may_retry or not retries_left or too_long or late:
            return failure
        retries_left -= 1
        yield [request.status("retrying")]
        run.sleep(max(wait, pause * random.uniform(0.5, 1.5)))
        pause *= 3


def _another_may_do(failure: UpstreamFailure) -> bool:
    """Say whether another upstream may answer what this one did not: not where the request is at fault."""
    if isinstance(failure, UpstreamRejected):
        return failure.code == "model_not_found" or failure.status == 404
    return True
