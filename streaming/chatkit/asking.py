"""A graph that waits for a person, as ChatKit's structured input: the questions, and what was answered."""

from collections.abc import Sequence
from typing import Any

from chatkit.types import (
    StructuredInput,
    StructuredInputAnswer,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputMultipleChoice,
    StructuredInputMultipleChoiceOption,
)

from streaming.events import Interrupt, json_line

QUESTION = ("question", "prompt", "message", "text", "title")
OPTIONS = ("answers", "options", "choices")
MAX_OPTIONS = 50
MAX_SHOWN_CHARS = 4000


def structured_input(
    item_id: str, interrupts: Sequence[Interrupt], about: dict[str, Any]
) -> StructuredInputItem:
    """Return the item that asks what a run's interrupts ask."""
    return StructuredInputItem(id=item_id, inputs=[_input(each) for each in interrupts], **about)


def answer_of(item: StructuredInputItem) -> Any:
    """Return what a waiting graph is answered: one value, or several by the id of their interrupt."""
    answers = {each.id: _value(each.answer) for each in item.inputs}
    return next(iter(answers.values())) if len(answers) == 1 else answers


def _input(interrupt: Interrupt) -> StructuredInput:
    value = interrupt.value
    if not isinstance(value, dict):
        return StructuredInputFreeform(id=interrupt.id, question=_shown(value))
    asked = next((name for name in QUESTION if isinstance(value.get(name), str)), "")
    offered = next((name for name in OPTIONS if _are_options(value.get(name))), "")
    question = value[asked] if asked else "The answer waits for you."
    besides = "\n\n".join(_shown(each) for name, each in value.items() if name not in (asked, offered))
    if not offered:
        return StructuredInputFreeform(
            id=interrupt.id, question=question[:MAX_SHOWN_CHARS], description=besides or None
        )
    if besides:
        question = f"{question}\n\n{besides}"
    return StructuredInputMultipleChoice(
        id=interrupt.id,
        question=question[:MAX_SHOWN_CHARS],
        options=[StructuredInputMultipleChoiceOption(value=each) for each in value[offered]],
    )


def _are_options(value: object) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_OPTIONS
        and all(isinstance(each, str) for each in value)
    )


def _value(answer: StructuredInputAnswer | None) -> Any:
    if answer is None or answer.skipped or not answer.values:
        return None
    return answer.values[0] if len(answer.values) == 1 else answer.values


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json_line(value).decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
