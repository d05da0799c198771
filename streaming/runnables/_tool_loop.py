"""The rounds of a tool loop as one run: see `tools`."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from msgspec.structs import replace

from streaming import scope
from streaming.errors import LimitExceeded, StreamingError, UpstreamFailure
from streaming.events import (
    Chunk,
    Done,
    Event,
    Reasoning,
    ResponseEvent,
    Status,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)
from streaming.runnables._functions import Function
from streaming.runnables._parallel import as_they_finish
from streaming.runnables._tool_calls import TOO_SLOW, Outcome, caller
from streaming.runnables._tool_rounds import ChatRounds, ResponseRounds, Round
from streaming.runnables._usage import UsageSum
from streaming.sources import Batches, Prompt, Source

# So many in one round are no mistake of a model, but a loop.
MOST_CALLS = 64
# The model has not finished saying its calls.
CUT_OFF = ("length", "content_filter")


@dataclass(frozen=True)
class Loop:
    """What `tools.ToolLoop` was told."""

    functions: Mapping[str, Function]
    model: str
    instructions: str
    speaks_responses: bool
    rounds: int
    result_bytes: int
    tool_seconds: float
    at_once: int


class ToolLoopSource:
    """See `Source`. Raises `InvalidRequest` for what a prompt cannot have here, as tools of its own."""

    def __init__(self, loop: Loop, asked: Source) -> None:
        self._loop = loop
        self._asked = asked

    def events(self, prompt: Prompt) -> Batches:
        rounds = ResponseRounds if self._loop.speaks_responses else ChatRounds
        conversation = rounds(
            prompt, self._loop.model, self._loop.instructions, list(self._loop.functions.values())
        )
        run = _Run(self._loop, self._asked)
        try:
            for left in reversed(range(self._loop.rounds)):
                said = yield from run.ask(conversation.prompt())
                if not said.calls or said.finish_reason in CUT_OFF:
                    yield run.end(said.finish_reason)
                    return
                if not left:
                    raise LimitExceeded(
                        f"the model still calls tools in round {self._loop.rounds}", code="rounds"
                    )
                results = yield from run.call(said.calls)
                conversation.add(said, results)
        except (scope.Stopped, StreamingError):
            yield run.usage()  # what was used is known, and paid for
            raise


class _Run:
    def __init__(self, loop: Loop, asked: Source) -> None:
        self._loop = loop
        self._asked = asked
        self._began = time.monotonic()
        self._usage = UsageSum()
        self._call_ids: set[str] = set()
        self._has_text = False

    def ask(self, prompt: Prompt) -> Generator[Sequence[Event], None, Round]:
        """Yield what the model says, without what only its own dialect's readers need, and return it all."""
        said = Round()
        try:
            with closing(self._asked.events(prompt)) as batches:
                for batch in batches:
                    shown = [self._shown(event, said) for event in batch]
                    if told := [event for event in shown if event is not None]:
                        yield told
        except UpstreamFailure:
            if not said.finish_reason:
                raise
            # The answer was complete; only the connection was not ended in order.
        finally:
            scope.current().relax()  # what was expected of the model is not of the tools
            self._usage.add(said.usage)
        return said

    def usage(self) -> list[Event]:
        return [Usage(self._usage.sum)] if self._usage.sum else []

    def end(self, finish_reason: str) -> list[Event]:
        return [*self.usage(), Done(finish_reason, self._usage.sum)]

    def call(self, calls: Sequence[ToolCall]) -> Generator[Sequence[Event], None, list[ToolResult]]:
        """Run the tools together, and yield and return their results."""
        yield list(calls)
        jobs = [caller(call, self._loop.functions, self._loop.result_bytes) for call in calls[:MOST_CALLS]]
        too_many = Outcome(f"not run: more than {MOST_CALLS} calls at once", failed=True)
        outcomes = dict.fromkeys(range(MOST_CALLS, len(calls)), too_many)
        if outcomes:
            yield [_result(calls[place], too_many) for place in outcomes]
        for place, outcome in as_they_finish(jobs, self._loop.at_once, self._loop.tool_seconds, TOO_SLOW):
            outcomes[place] = outcome
            yield [_result(calls[place], outcome)]
        return [_result(call, outcomes[place]) for place, call in enumerate(calls)]

    def _shown(self, event: Event, said: Round) -> Event | None:
        if isinstance(event, Chunk | Token | Reasoning):
            said.note_fragments(event)
        match event:
            case Token(text, refusal):
                begins = said.note_text(text)
                # What is said after a tool's result is a paragraph of its own.
                text = "\n\n" + text if begins and self._has_text else text
                self._has_text = True
                return Token(text, refusal)
            case Reasoning(text, field):
                said.note_reasoning(text, field)
                return Reasoning(text, field)
            case Status():
                return replace(event, milliseconds=int((time.monotonic() - self._began) * 1000))
            case ResponseEvent():
                said.note_item(event)
            case ToolCall() if said.ran_at_model(event):
                return replace(event, handled=True)
            case ToolCall():
                said.note_call(event, self._own_id(event.id))
            case Usage(usage):
                said.usage = usage
            case Done(reason, usage):
                said.finish_reason = reason
                said.usage = usage or said.usage
        return None

    def _own_id(self, call_id: str) -> str:
        """Return an id no other call of the run has; some servers give none, or always the same."""
        if not call_id or call_id in self._call_ids:
            call_id = f"call_{len(self._call_ids)}"
        while call_id in self._call_ids:
            call_id += "_"
        self._call_ids.add(call_id)
        return call_id


def _result(call: ToolCall, outcome: Outcome) -> ToolResult:
    return ToolResult(call.id, call.tool, outcome.result, outcome.failed, outcome.truncated)
