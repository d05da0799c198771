"""What the tests of what calls tools share: a source of a tool loop, and what is heard of it."""

from collections.abc import Callable, Sequence
from typing import Any

from streaming.events import Event, ToolResult
from streaming.runnables import tools
from streaming.runnables.tools import ToolLoop
from streaming.settings import Settings
from streaming.sources import Prompt, Source
from tests.model_double import ModelDouble

HI = [{"role": "user", "content": "hi"}]
DEMO = Settings(demo_tokens_per_second=0)


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


MakeModel = Callable[..., ModelDouble]


def source(loop: ToolLoop, at: ModelDouble | None = None) -> Source:
    settings = Settings(openai_base_url=at.base_url, upstream_retries=0) if at else DEMO
    return tools.create(loop, settings)


def heard(asked: Source, **prompt: Any) -> list[Event]:
    events: list[Event] = []
    collect(asked, events, **prompt)
    return events


def kinds(events: Sequence[Event], *kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def results(events: Sequence[Event]) -> list[tuple[str, Any, bool]]:
    return [(event.id, event.result, event.failed) for event in kinds(events, ToolResult)]


def collect(asked: Source, events: list[Event], **prompt: Any) -> None:
    """Add what is heard to ``events``, also when a run fails."""
    given = Prompt("", prompt.pop("messages", HI), **prompt)
    for batch in asked.events(given):
        events += batch
