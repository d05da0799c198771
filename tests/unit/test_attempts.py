"""Who is asked, how often and in which order, until somebody answers."""

import time
from collections.abc import Iterator

import gevent
import pytest

from streaming import scope
from streaming.errors import (
    LimitExceeded,
    StreamingError,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailure,
    UpstreamOverloaded,
    UpstreamQuota,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from streaming.events import Done, Event, Status, Token
from streaming.scope import Scope
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, _attempts
from streaming.sources._routes import Route, Routes
from streaming.upstreams import ModelSettings, UpstreamSettings
from tests.doubles import PROMPT, Gate, Step, eventually, running, says

SETTINGS = Settings(upstream_retries=2)


def routes_to(*names: str) -> list[Route]:
    upstream = UpstreamSettings("u", "http://127.0.0.1:1/v1")
    models = (ModelSettings(names[0], upstream, names[0], names[1:]),)
    models += tuple(ModelSettings(name, upstream, name) for name in names[1:])
    return list(Routes(Settings(catalogue=models)).of(names[0]))


class Script:
    """Attempts that follow a script for each route, one list of steps a request; the last one repeats."""

    def __init__(self, **steps: list[list[Step]]) -> None:
        self.asked: list[str] = []
        self.closed = 0
        self._steps = steps

    def __call__(self, began: float) -> "ScriptedAttempt":
        return ScriptedAttempt(self, began)

    def next(self, name: str) -> list[Step]:
        turn = self.asked.count(name)
        self.asked.append(name)
        return self._steps[name][min(turn, len(self._steps[name]) - 1)]


class ScriptedAttempt:
    def __init__(self, script: Script, began: float) -> None:
        self.said_something = False
        self._script = script
        self._began = began

    def status(self, status: _attempts.Doing, model: str = "") -> Status:
        return Status(status, int((time.monotonic() - self._began) * 1000), model)

    def events(self, route: Route, prompt: Prompt) -> Batches:
        try:
            for step in self._script.next(route.name):
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, Gate):
                    step.wait()
                elif callable(step):
                    step()
                else:
                    assert isinstance(step, list)
                    self.said_something = True
                    yield step
        finally:
            self._script.closed += 1


@pytest.fixture(autouse=True)
def run() -> Iterator[Scope]:
    with scope.entered(Scope()) as run:
        yield run


def answer_of(script: Script, *names: str, settings: Settings = SETTINGS) -> list[Event]:
    batches = _attempts.answer(routes_to(*names), PROMPT, settings, script)
    return [event for batch in batches for event in batch]


def said(events: list[Event]) -> list[str]:
    """Return the events in short."""
    return [
        event.content
        if isinstance(event, Token)
        else f"{event.status} {event.model}".strip()
        if isinstance(event, Status)
        else type(event).__name__
        for event in events
    ]


PASSES = UpstreamOverloaded("overloaded", may_retry=True)
LASTS = UpstreamAuth("not our key")
WRONG = UpstreamRejected("too long", code="context_length_exceeded")

FALL_BACK: dict[str, UpstreamFailure] = {
    "unreachable": UpstreamUnreachable("unreachable"),
    "no first token": UpstreamTimeout("silent", code="first_token"),
    "an error": UpstreamFailure("failed"),
    "overloaded": UpstreamOverloaded("overloaded"),
    "rate limited": UpstreamRateLimited("slow down"),
    "out of quota": UpstreamQuota("used up"),
    "a refused key": LASTS,
    "no answer": UpstreamBadResponse("a page", code="content_type"),
    "cut off": UpstreamTruncated("cut off"),
    "an unknown model": UpstreamRejected("no such model", code="model_not_found"),
    "an unknown address": UpstreamRejected("no such address", status=404),
}
MISTAKES: dict[str, UpstreamFailure] = {
    "too long": WRONG,
    "a bad request": UpstreamRejected("bad request"),
    "too large": UpstreamRejected("too large", status=413),
    "not processable": UpstreamRejected("not so", status=422),
    "filtered": UpstreamRejected("filtered", code="content_filter"),
}


def test_the_first_that_answers_is_the_only_one_asked() -> None:
    script = Script(a=[says("hi")], b=[says("no")])

    assert said(answer_of(script, "a", "b")) == ["hi", "Done"]
    assert script.asked == ["a"]


@pytest.mark.parametrize("failure", FALL_BACK.values(), ids=FALL_BACK)
def test_a_fault_that_another_may_not_have_goes_on_to_the_next(failure: UpstreamFailure) -> None:
    script = Script(a=[[failure]], b=[says("hi")])

    assert said(answer_of(script, "a", "b")) == ["fallback b", "hi", "Done"]
    assert script.asked == ["a", "b"]


@pytest.mark.parametrize("failure", MISTAKES.values(), ids=MISTAKES)
def test_a_request_at_fault_is_asked_of_nobody_else(failure: UpstreamFailure) -> None:
    script = Script(a=[[failure]], b=[says("hi")])

    with pytest.raises(UpstreamRejected) as error:
        answer_of(script, "a", "b")

    assert error.value is failure
    assert script.asked == ["a"]


def test_a_fault_that_may_pass_is_first_met_by_asking_again() -> None:
    script = Script(a=[[PASSES]], b=[says("hi")])

    assert said(answer_of(script, "a", "b")) == ["retrying", "retrying", "fallback b", "hi", "Done"]
    assert script.asked == ["a", "a", "a", "b"]


def test_each_route_is_asked_again_as_often_as_the_first() -> None:
    script = Script(a=[[PASSES]], b=[[PASSES], [PASSES], says("hi")])

    assert said(answer_of(script, "a", "b"))[-2:] == ["hi", "Done"]
    assert script.asked == ["a", "a", "a", "b", "b", "b"]


def test_fallbacks_are_asked_in_their_order() -> None:
    script = Script(a=[[LASTS]], b=[[LASTS]], c=[says("hi")], d=[says("no")])

    assert said(answer_of(script, "a", "b", "c", "d")) == ["fallback b", "fallback c", "hi", "Done"]


def test_after_the_first_word_nobody_else_is_asked() -> None:
    script = Script(a=[[[Token("half")], PASSES]], b=[says("hi")])

    with pytest.raises(UpstreamOverloaded) as error:
        answer_of(script, "a", "b")

    assert error.value is PASSES
    assert script.asked == ["a"]


def test_a_fallback_that_is_cut_off_says_so_itself() -> None:
    cut = UpstreamTruncated("cut", may_retry=True)
    script = Script(a=[[PASSES]], b=[[[Token("half")], cut]], c=[says("hi")])

    with pytest.raises(UpstreamTruncated) as error:
        answer_of(script, "a", "b", "c")

    assert error.value is cut
    assert "c" not in script.asked


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([PASSES, LASTS], 0),
        ([LASTS, PASSES], 1),
        ([LASTS, UpstreamQuota("used up")], 1),
        ([UpstreamFailure("one"), PASSES], 0),
        ([LASTS, WRONG], 1),
        ([PASSES, WRONG], 0),
    ],
)
def test_where_nobody_answers_the_fault_that_may_pass_is_told(
    failures: list[UpstreamFailure], told: int
) -> None:
    script = Script(a=[[failures[0]]], b=[[failures[1]]])

    with pytest.raises(StreamingError) as error:
        answer_of(script, "a", "b", settings=Settings(upstream_retries=0))

    assert error.value is failures[told]


def test_what_is_no_fault_of_an_upstream_ends_the_run() -> None:
    script = Script(a=[[LimitExceeded("too long")]], b=[says("hi")])

    with pytest.raises(LimitExceeded):
        answer_of(script, "a", "b")

    assert script.asked == ["a"]


def test_a_long_wait_that_is_asked_for_is_not_waited_where_another_may_be_asked() -> None:
    limited = UpstreamRateLimited("slow down", may_retry=True, retry_after_seconds=9)
    script = Script(a=[[limited]], b=[says("hi")])
    began = time.monotonic()

    assert said(answer_of(script, "a", "b")) == ["fallback b", "hi", "Done"]
    assert time.monotonic() - began < 5


def test_a_wait_that_is_asked_for_is_waited() -> None:
    limited = UpstreamRateLimited("slow down", may_retry=True, retry_after_seconds=0.3)
    script = Script(a=[[limited], says("hi")], b=[says("no")])
    began = time.monotonic()

    assert said(answer_of(script, "a", "b")) == ["retrying", "hi", "Done"]
    assert time.monotonic() - began >= 0.3


def test_nobody_is_asked_again_after_the_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attempts, "RETRIES_WITHIN_SECONDS", 0.25)
    script = Script(a=[[PASSES]])

    with pytest.raises(UpstreamOverloaded):
        answer_of(script, "a", settings=Settings(upstream_retries=1000))

    assert 1 < len(script.asked) < 10


def test_nobody_else_is_asked_after_the_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attempts, "RETRIES_WITHIN_SECONDS", 0.0)
    settings = Settings(first_token_timeout_seconds=0.05, upstream_retries=0)
    slow, gate = UpstreamTimeout("silent", code="first_token"), Gate()
    script = Script(a=[[gate, slow]], b=[says("hi")])

    with running(lambda: (gevent.sleep(0.1), gate.open())), pytest.raises(UpstreamTimeout):
        answer_of(script, "a", "b", settings=settings)

    assert script.asked == ["a"]


# Stopping


def stopped_in(script: Script, run: Scope, *names: str, settings: Settings = SETTINGS) -> scope.Stopped:
    """Cancel the run once it waits; return what the attempts are ended with."""
    ended: list[scope.Stopped] = []

    def ask() -> None:
        with scope.entered(run):
            try:
                answer_of(script, *names, settings=settings)
            except scope.Stopped as stop:
                ended.append(stop)

    with running(ask):
        eventually(lambda: run.waiters and script.asked)
        run.stop(None)
        eventually(lambda: ended)
    return ended[0]


@pytest.mark.parametrize("where", ["a", "b"])
def test_a_cancel_ends_the_request_that_waits_and_asks_nobody_else(run: Scope, where: str) -> None:
    waits: list[list[Step]] = [[Gate(), *says("late")]]
    script = Script(a=waits if where == "a" else [[LASTS]], b=waits, c=[says("no")])

    assert stopped_in(script, run, "a", "b", "c").error is None
    assert script.asked == (["a"] if where == "a" else ["a", "b"])
    assert script.closed == len(script.asked)


def test_a_cancel_ends_the_wait_before_asking_again(run: Scope) -> None:
    limited = UpstreamRateLimited("slow down", may_retry=True, retry_after_seconds=2)
    script = Script(a=[[limited]], b=[says("no")])
    began = time.monotonic()

    assert stopped_in(script, run, "a", "b").error is None
    assert time.monotonic() - began < 1.5
    assert script.asked == ["a"]


@pytest.mark.parametrize("failure", [LASTS, PASSES, scope.Stopped(PASSES)], ids=["lasts", "passes", "late"])
def test_a_cancel_that_comes_with_a_fault_is_a_cancel(run: Scope, failure: BaseException) -> None:
    script = Script(a=[[lambda: run.stop(None), failure]], b=[says("no")])
    batches = _attempts.answer(routes_to("a", "b"), PROMPT, SETTINGS, script)

    with pytest.raises(scope.Stopped) as stop:
        next(batches)  # not even a status

    assert stop.value is run.stopped


def test_a_time_out_of_a_request_goes_on_to_the_next(run: Scope) -> None:
    script = Script(a=[[Gate()]], b=[says("hi")])
    run.expect(0.05, UpstreamTimeout("silent", code="first_token"))
    heard: list[Event] = []

    def ask() -> None:
        with scope.entered(run):
            heard.extend(answer_of(script, "a", "b"))

    with running(ask):
        eventually(lambda: run.check_deadlines(time.monotonic()) or heard)

    assert said(heard) == ["fallback b", "hi", "Done"]


def test_a_deadline_of_a_failed_request_is_not_one_of_the_wait_for_the_next(run: Scope) -> None:
    limited = UpstreamRateLimited("slow down", may_retry=True, retry_after_seconds=0.3)
    script = Script(a=[[limited], says("hi")])
    run.expect(0.05, UpstreamTimeout("silent", code="first_token"))
    heard: list[Event] = []

    def ask() -> None:
        with scope.entered(run):
            heard.extend(answer_of(script, "a"))

    with running(ask):
        eventually(lambda: run.check_deadlines(time.monotonic()) or heard)

    assert said(heard) == ["retrying", "hi", "Done"]


def test_closing_the_answer_closes_the_request() -> None:
    script = Script(a=[[LASTS]], b=[[[Token("one")], [Token("two")], [Done("stop")]]])
    batches = _attempts.answer(routes_to("a", "b"), PROMPT, SETTINGS, script)
    next(batches)
    next(batches)

    batches.close()

    assert script.closed == 2
