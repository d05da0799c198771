"""One answer as ChatKit tells it: from the events of a run to items of a thread.

Live, the changes are told as they come; of an answer that is kept only the items
are wanted. Both are made here, of the same events, so what a client has seen is
what it finds when it loads the thread again: the ids of the items follow from
the stream's.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientToolCallItem,
    NoticeEvent,
    ProgressUpdateEvent,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)

from streaming.chatkit.asking import structured_input
from streaming.chatkit.citing import annotation_of
from streaming.chatkit.working import Working
from streaming.errors import ErrorInfo
from streaming.events import (
    Done,
    Error,
    Event,
    Interrupt,
    Reasoning,
    Sources,
    Status,
    Token,
    ToolCall,
    ToolResult,
)

PROGRESS = {
    "queued": "Waiting for a free place…",
    "connecting": "Connecting…",
    "thinking": "Thinking…",
    "retrying": "Trying again…",
    "fallback": "Asking another model…",
    "stalled": "Still waiting for the model…",
}
NOTICES = {
    "cancelled": "This answer was stopped.",
    "length": "The answer ends here: it reached the length the model may write.",
    "content_filter": "The answer ends here: the model's server filtered the rest.",
}
Told = list[ThreadStreamEvent]


class Telling:
    """Feed it a run's events in order, from the first."""

    def __init__(self, thread_id: str, stream_id: str, created: datetime) -> None:
        self.failure: ErrorInfo | None = None
        """What ended the run, if it failed."""
        self._about: dict[str, Any] = {"thread_id": thread_id, "created_at": created}
        self._tail = tail_of(stream_id)
        self._items: list[ThreadItem] = []
        self._message: AssistantMessageItem | None = None
        self._text: list[str] = []
        self._held: list[str] = []
        self._work: Working | None = None
        self._cited: list[Annotation] = []
        self._call: ToolCall | None = None
        self._interrupts: list[Interrupt] = []

    @property
    def items(self) -> list[ThreadItem]:
        """All items so far, the unfinished ones as they stand."""
        if self._message is not None and self._message.content:
            self._message.content[0].text = "".join(self._text)
        return list(self._items)

    def tell(self, events: Iterable[Event]) -> Told:
        """Return what changes by these events; their neighbouring tokens are told as one delta."""
        told: Told = []
        for event in events:
            if isinstance(event, Token):
                if event.content:
                    told += self._say(event.content)
            else:
                told += self._flush()
                told += self._take(event)
        return told + self._flush()

    def _take(self, event: Event) -> Told:
        match event:
            case Status(status, model=model):
                text = f"Asking {model} instead…" if model else PROGRESS[status]
                return [ProgressUpdateEvent(text=text)]
            case Reasoning(content) if content:
                told, work = self._working()
                return [*told, *work.think(content)]
            case ToolCall(handled=True):
                told, work = self._working()
                return [*told, *work.call(event)]
            case ToolCall():
                self._call = self._call or event
            case ToolResult():
                told, work = self._working()
                return [*told, *work.result(event)]
            case Sources(documents):
                return [update for document in documents for update in self._cite(annotation_of(document))]
            case Interrupt():
                self._interrupts.append(event)
            case Done(finish_reason):
                return [*self._close(), *self._ask(), *_notice(finish_reason)]
            case Error(error):
                self.failure = error
                return self._close()
        return []

    # The text

    def _say(self, text: str) -> Told:
        told: Told = []
        if self._message is None:
            told += self._end_work()
            self._message = AssistantMessageItem(id=self._new_id("msg"), content=[], **self._about)
            self._items.append(self._message)
            told.append(ThreadItemAddedEvent(item=self._message.model_copy(deep=True)))
            content = AssistantMessageContent(text="")
            self._message.content = [content]
            part = AssistantMessageContentPartAdded(content_index=0, content=content.model_copy(deep=True))
            told.append(self._updated(part))
            cited, self._cited = self._cited, []
            for annotation in cited:
                told += self._cite(annotation)
        self._held.append(text)
        return told

    def _flush(self) -> Told:
        if not self._held:
            return []
        delta = "".join(self._held)
        self._held = []
        self._text.append(delta)
        return [self._updated(AssistantMessageContentPartTextDelta(content_index=0, delta=delta))]

    def _cite(self, annotation: Annotation) -> Told:
        if self._message is None:
            self._cited.append(annotation)  # until there is a message
            return []
        annotations = self._message.content[0].annotations
        annotations.append(annotation)
        place = len(annotations) - 1
        return [
            self._updated(
                AssistantMessageContentPartAnnotationAdded(
                    content_index=0, annotation_index=place, annotation=annotation
                )
            )
        ]

    def _updated(self, update: Any) -> ThreadItemUpdatedEvent:
        assert self._message is not None
        return ThreadItemUpdatedEvent(item_id=self._message.id, update=update)

    def _end_message(self) -> Told:
        told = self._flush()
        if self._message is not None:
            _ = self.items
            message = self._message
            part = AssistantMessageContentPartDone(content_index=0, content=message.content[0])
            told += [self._updated(part), ThreadItemDoneEvent(item=message)]
            self._message, self._text = None, []
        return told

    # What is not text

    def _working(self) -> tuple[Told, Working]:
        told: Told = []
        if self._work is None:
            told += self._end_message()
            self._work = Working(self._new_id("wf"), self._about)
            self._items.append(self._work.item)
        return told, self._work

    def _end_work(self) -> Told:
        work, self._work = self._work, None
        return work.end() if work is not None else []

    def _close(self) -> Told:
        return [*self._end_message(), *self._end_work()]

    def _ask(self) -> Told:
        """Tell what the client is to do: last of all, where the protocol looks for it."""
        asked: ThreadItem
        if self._interrupts:
            asked = structured_input(self._new_id("inp"), self._interrupts, self._about)
        elif self._call is not None:
            call = self._call
            asked = ClientToolCallItem(
                id=self._new_id("tc"),
                call_id=call.id,
                name=call.tool,
                arguments=call.args or {},
                **self._about,
            )
        else:
            return []
        self._items.append(asked)
        return [ThreadItemDoneEvent(item=asked)]

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self._tail}_{len(self._items) + 1}"


def tail_of(stream_id: str) -> str:
    """Return what stands in the id of every item that a run made."""
    return stream_id.removeprefix("st_")


def _notice(finish_reason: str) -> Told:
    if finish_reason not in NOTICES:
        return []
    message = NOTICES[finish_reason]
    if finish_reason == "cancelled":
        return [NoticeEvent(level="info", message=message)]
    return [NoticeEvent(level="warning", message=message)]
