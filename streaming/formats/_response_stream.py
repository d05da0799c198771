"""One run as a response: its events, numbered, and the object they add up to.

The numbers depend on nothing but the log and what was asked, so any worker can
go on after any of them at any time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from streaming.events import (
    Done,
    Error,
    Event,
    MetricsTick,
    Record,
    ResponseEvent,
    Start,
    Status,
    Usage,
    decode,
)
from streaming.formats._response_from_chunks import FromChunks
from streaming.formats._response_items import Events
from streaming.formats._response_object import error_event, new_response, response_error, response_usage
from streaming.formats._response_output import Output
from streaming.formats._response_passed_on import PassedOn
from streaming.formats._usage import estimated_usage

JSON = dict[str, Any]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseStream:
    """Takes a stream's records, from its first on; ``asked`` is what its order said of it."""

    def __init__(self, asked: JSON) -> None:
        echoed = asked.get("response")
        self._asked: JSON = echoed if isinstance(echoed, dict) else {}
        self._start = Start("st_", "", "", 0)
        self._source: FromChunks | PassedOn | None = None
        self._head: JSON = new_response(self._start, self._asked)
        self._end: JSON = {}
        """What the end changes of the head."""
        self._output = Output()
        self._usage: JSON | None = None
        self._created = False
        self._created_here = False
        """Not by the upstream, whose own word for it is then one too many."""
        self._next_number = 0

    def take(self, record: Record) -> Sequence[JSON]:
        """Return the events that ``record`` adds."""
        event = decode(record.payload)
        if not record.seq and isinstance(event, Error):
            # Not in the log: this reader cannot go on, the run may.
            return self._numbered([error_event(event.error)])
        return self._numbered(self._events(event))

    def response(self) -> JSON:
        """Return the response as it is now."""
        head = {**self._head, **self._end}
        if isinstance(self._end.get("output"), list):
            return head
        return {**head, "output": self._output.items(ended=bool(self._end))}

    def _numbered(self, events: Iterable[JSON]) -> list[JSON]:
        numbered = []
        for event in events:
            event["sequence_number"] = self._next_number
            numbered.append(event)
            self._next_number += 1
        return numbered

    def _events(self, event: Event) -> Events:
        match event:
            case Start():
                self._start = event
                self._head = new_response(event, self._asked)
                if self._asked.get("background"):
                    # Its client may leave from now on, and wants an id to come back with.
                    yield from self._create()
            case Status() | MetricsTick():
                pass
            case Usage(usage):
                self._usage = usage
            case Error() | Done("cancelled"):
                yield from self._break_off(event)
            case Done():
                yield from self._finish(event)
            case _:
                yield from self._go_on(event)

    def _go_on(self, event: Event) -> Events:
        if self._source is None:
            passed_on = isinstance(event, ResponseEvent)
            self._source = PassedOn(self._start, self._asked) if passed_on else FromChunks(self._start)
            if isinstance(self._source, FromChunks):
                # The first chunk knows which model answers.
                made = list(self._source.of(event))
                yield from self._begin(self._source)
                yield from self._with_output(made)
                return
        if isinstance(self._source, PassedOn):
            yield from self._pass_on(self._source, event)
        else:
            yield from self._with_output(self._source.of(event))
            self._head |= self._source.head

    def _begin(self, source: FromChunks) -> Events:
        self._head |= source.head
        yield from self._create()
        yield {"type": "response.in_progress", "response": {**self._head}}

    def _pass_on(self, source: PassedOn, event: Event) -> Events:
        for said in source.of(event):
            self._head = source.head or self._head
            if said.get("type") != "response.created":
                yield from self._create()
            elif self._created_here:
                continue
            else:
                self._created = True
            yield from self._with_output([said])

    def _with_output(self, events: Iterable[JSON]) -> Events:
        for event in events:
            self._output.take(event)
            yield event

    def _create(self) -> Events:
        """Begin the response if it has not begun: clients hear nothing before that."""
        if not self._created:
            self._created = self._created_here = True
            yield {"type": "response.created", "response": {**self._head}}

    def _finish(self, done: Done) -> Events:
        if isinstance(self._source, PassedOn) and (end := self._source.end()):
            yield from self._create()
            self._end = dict(end["response"])
            yield end
            return
        if self._source is None:
            self._source = FromChunks(self._start)
            yield from self._begin(self._source)
        incomplete = _INCOMPLETE.get(done.finish_reason)
        status = "incomplete" if incomplete else "completed"
        if isinstance(self._source, FromChunks):
            yield from self._with_output(self._source.end(status))
        self._end = {"status": status, **self._used(done)}
        if incomplete:
            self._end["incomplete_details"] = {"reason": incomplete}
        elif done.metrics is not None:
            self._end["completed_at"] = self._start.created + round(done.metrics.elapsed_seconds)
        yield {"type": f"response.{status}", "response": self.response()}

    def _break_off(self, last: Done | Error) -> Events:
        """End what is not complete; that of a cancelled run is no success to any client either."""
        yield from self._create()
        if self._head.get("usage") is None:
            self._head.pop("usage", None)
        self._end = {"status": "cancelled", **self._used(last)}
        if isinstance(last, Error):
            self._end |= {"status": "failed", "error": response_error(last.error)}
        yield {"type": "response.failed", "response": self.response()}

    def _used(self, last: Done | Error) -> JSON:
        usage = last.usage or self._usage or estimated_usage(last)
        return {"usage": response_usage(usage)} if usage else {}
