"""What ChatKit is told of a run, checked by applying it as a client does."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from chatkit.server import ChatKitServer
from chatkit.types import (
    AssistantMessageItem,
    ClientToolCallItem,
    ErrorEvent,
    NoticeEvent,
    ProgressUpdateEvent,
    StructuredInputAnswer,
    StructuredInputItem,
    ThoughtTask,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    WorkflowItem,
)

from streaming.chatkit.asking import answer_of
from streaming.chatkit.telling import Telling
from streaming.errors import ErrorInfo
from streaming.events import (
    Chunk,
    Document,
    Done,
    Error,
    Event,
    Interrupt,
    Reasoning,
    Sources,
    Start,
    StateUpdate,
    Status,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER: list[Event] = [
    Start("st_abc", "chat", "demo", 1),
    Status("connecting", 0),
    Reasoning("Let me "),
    Reasoning("see."),
    ToolCall("c1", "weather", {"city": "Paris"}, handled=True),
    Chunk(first={"id": "x"}),
    ToolResult("c1", "weather", {"sky": "blue"}),
    Sources([Document("https://example.org/a", "A", "about a"), Document("b.md", "B", "")]),
    Token("It is "),
    Token("fine."),
    Usage({"total_tokens": 3}),
    ToolCall("c2", "mail", {}, handled=True),
    Token("Sent."),
    ToolResult("c2", "mail", "ok", failed=True),
    StateUpdate("values", {"a": 1}),
    Done("stop"),
]


def telling() -> Telling:
    return Telling("thr_1", "st_abc", AT)


class Shown(ChatKitServer[None]):
    """What a client shows, by the library's own way to apply updates."""

    def __init__(self) -> None:
        self.open: dict[str, ThreadItem] = {}
        self.done: list[ThreadItem] = []
        self.other: list[ThreadStreamEvent] = []

    def respond(self, *_: Any) -> Any:
        raise AssertionError("nobody is asked here: only what updates do is looked at")

    def apply(self, events: Sequence[ThreadStreamEvent]) -> None:
        for event in events:
            match event:
                case ThreadItemAddedEvent(item=item):
                    assert item.id not in self.open, "added twice"
                    self.open[item.id] = item.model_copy(deep=True)
                case ThreadItemUpdatedEvent(item_id=item_id):
                    assert item_id in self.open, "an update of an item that was not added"
                    self._update_pending_items(self.open, event.model_copy(deep=True))
                case ThreadItemDoneEvent(item=item):
                    shown = self.open.pop(item.id, None)
                    if isinstance(shown, AssistantMessageItem):
                        assert shown == item, "what was told bit by bit is not what it is in the end"
                    self.done.append(item.model_copy(deep=True))
                case _:
                    self.other.append(event)


def shown(events: Sequence[Event], batch: int = 1) -> tuple[Shown, Telling]:
    told, client = telling(), Shown()
    for place in range(0, len(events), batch):
        client.apply(told.tell(events[place : place + batch]))
    return client, told


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_what_is_told_live_is_what_is_found_later(batch: int) -> None:
    client, told = shown(ANSWER, batch)
    assert not client.open
    assert client.done == told.items
    later = telling()
    later.tell(ANSWER)
    assert later.items == told.items


def test_an_answer_is_work_and_text_in_the_order_they_came() -> None:
    _, told = shown(ANSWER)
    assert [item.type for item in told.items] == [
        "workflow",
        "assistant_message",
        "workflow",
        "assistant_message",
        "workflow",
    ]
    work, first, _, second, _ = told.items
    assert isinstance(work, WorkflowItem)
    assert isinstance(first, AssistantMessageItem)
    assert isinstance(second, AssistantMessageItem)
    thought, tool = work.workflow.tasks
    assert isinstance(thought, ThoughtTask)
    assert thought.content == "Let me see."
    assert (tool.type, tool.status_indicator) == ("custom", "complete")
    assert '"city":"Paris"' in str(tool)
    assert '"sky":"blue"' in str(tool)
    assert first.content[0].text == "It is fine."
    assert [annotation.source.type for annotation in first.content[0].annotations] == ["url", "entity"]
    assert second.content[0].text == "Sent."


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_an_answer_cut_anywhere_has_what_was_said(cut: int) -> None:
    _, told = shown(ANSWER[:cut])
    said = "".join(event.content for event in ANSWER[:cut] if isinstance(event, Token))
    found = [item.content[0].text for item in told.items if isinstance(item, AssistantMessageItem)]
    assert "".join(found) == said
    ids = [item.id for item in told.items]
    whole = telling()
    whole.tell(ANSWER)
    assert ids == [item.id for item in whole.items][: len(ids)]


def test_tokens_that_came_together_are_one_update() -> None:
    told = telling()
    events = told.tell([Token("a"), Token("b"), Token(""), Token("c")])
    deltas = [event for event in events if "text_delta" in str(getattr(event, "update", ""))]
    assert len(deltas) == 1


def test_a_long_thought_is_told_in_proportion_to_its_length() -> None:
    told = telling()
    sent = 0
    for _ in range(5000):
        sent += sum(len(event.model_dump_json()) for event in told.tell([Reasoning("thinking ")]))
    assert sent < 10 * 5000 * len("thinking ")


def test_an_answer_without_text_tells_no_message() -> None:
    client, _ = shown([Start("st_abc", "chat", "demo", 1), Token(""), Done("stop")])
    assert client.done == []


@pytest.mark.parametrize(
    ("reason", "level"), [("length", "warning"), ("content_filter", "warning"), ("cancelled", "info")]
)
def test_an_answer_that_ends_early_says_so(reason: str, level: str) -> None:
    client, _ = shown([Token("a"), Done(reason)])
    (notice,) = client.other
    assert isinstance(notice, NoticeEvent)
    assert notice.level == level


def test_a_failure_ends_what_is_open_and_is_known() -> None:
    failed = Error(ErrorInfo("the model broke", "upstream_error", "x", retryable=True))
    client, told = shown([Token("a"), failed])
    assert len(client.done) == 1
    assert told.failure == failed.error
    assert not any(isinstance(event, ErrorEvent) for event in client.other)


def test_progress_is_told_in_words() -> None:
    client, _ = shown([Status("connecting", 0), Status("fallback", 1, "small")])
    assert [each.text for each in client.other if isinstance(each, ProgressUpdateEvent)] == [
        "Connecting…",
        "Asking small instead…",
    ]


def test_a_tool_that_is_the_clients_to_run_is_the_last_item() -> None:
    events = [ToolCall("c1", "pick_colour", {"of": "hat"}), Token("One moment."), Done("tool_calls")]
    _, told = shown(events)
    call = told.items[-1]
    assert isinstance(call, ClientToolCallItem)
    assert (call.call_id, call.name, call.arguments, call.status) == (
        "c1",
        "pick_colour",
        {"of": "hat"},
        "pending",
    )


def test_a_graph_that_asks_is_answered_by_what_was_chosen() -> None:
    value = {"question": "Send it?", "draft": "Dear Ana", "answers": ["yes", "no"]}
    _, told = shown([Interrupt("i1", value), Done("interrupt")])
    asked = told.items[-1]
    assert isinstance(asked, StructuredInputItem)
    (choice,) = asked.inputs
    assert choice.type == "multiple_choice"
    assert choice.question == "Send it?\n\nDear Ana"
    assert [option.value for option in choice.options] == ["yes", "no"]
    assert answer_of(asked) is None
    choice.answer = StructuredInputAnswer(values=["yes"])
    assert answer_of(asked) == "yes"


def test_several_questions_are_answered_by_their_ids() -> None:
    _, told = shown([Interrupt("i1", "Name?"), Interrupt("i2", {"a": 1}), Done("interrupt")])
    asked = told.items[-1]
    assert isinstance(asked, StructuredInputItem)
    asked.inputs[0].answer = StructuredInputAnswer(values=["Ana"])
    asked.inputs[1].answer = StructuredInputAnswer(skipped=True)
    assert answer_of(asked) == {"i1": "Ana", "i2": None}
