"""LangServe's ``/stream_events``: LangChain's StreamEvents, those that were asked for."""

from typing import Any

import msgspec

from streaming.events import Done, Error, Record, RunEvent, decode, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._langserve import CANCELLED, END, failure


class EventsFormat:
    media_type = "text/event-stream"
    resumes = False
    from_start = True

    def __init__(self, wants: Wants) -> None:
        filters = wants.request.get("filters")
        self._filters = Filters(filters if isinstance(filters, dict) else {})

    def encode(self, record: Record) -> tuple[Message, ...]:
        match event := decode(record.payload):
            case RunEvent() if self._filters.pass_on(event):
                told = msgspec.structs.asdict(event)
                return (Message(json_line(told), event="data"),)
            case Error() as last:
                return (failure(last),)
            case Done("cancelled"):
                return (CANCELLED,)
            case Done():
                return (END,)
        return ()


class Filters:
    """Which events somebody wants: by the name, type and tags of the run they come from.

    Source: langchain_core.tracers.memory_stream and event_stream, `_RootEventFilter`.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self._included = [asked.get(f"include_{name}") for name in ("names", "types", "tags")]
        self._excluded = [asked.get(f"exclude_{name}") or [] for name in ("names", "types", "tags")]

    def pass_on(self, event: RunEvent) -> bool:
        kind = event.event.removeprefix("on_").rpartition("_")[0]
        is_about = [{event.name}, {kind}, set(event.tags)]
        wanted = all(names is None for names in self._included) or any(
            names is not None and not about.isdisjoint(names)
            for names, about in zip(self._included, is_about, strict=True)
        )
        return wanted and all(
            about.isdisjoint(names) for names, about in zip(self._excluded, is_about, strict=True)
        )


def create(wants: Wants) -> WireFormat:
    return EventsFormat(wants)
