"""What was said before, as messages: the history that a model is given with a new question.

Turns without a word of an answer are left out. Where there is more than a
request may hold, the oldest turns are; the new question never is.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from streaming.sources import Prompt
from streaming.turns import Turn

Messages = list[dict[str, Any]]


class Room(NamedTuple):
    """What the messages of one request may have together."""

    chars: int
    """Of text."""
    bytes: int
    """As JSON, images included."""
    messages: int

    def without(self, messages: Messages) -> "Room":
        return Room(
            self.chars - sum(_chars(message.get("content")) for message in messages),
            self.bytes - len(msgspec.json.encode(messages)),
            self.messages - len(messages),
        )


def with_history(prompt: Prompt, own: Messages, before: Iterable[Turn], room: Room) -> Prompt:
    """Return the prompt with what was said before put in front of its ``own``, last messages.

    ``before``: the turns before, the newest first; no more of them are taken than there is room for.
    """
    said = fresh(own)
    lead = prompt.messages[: len(prompt.messages) - len(own)]
    room = room.without([*lead, *said])
    history: Messages = []
    for turn in before:
        exchange = exchange_of(turn)
        room = room.without(exchange)
        if min(room) < 0:
            break
        history = [*exchange, *history]
    return replace(prompt, messages=[*lead, *history, *said])


def exchange_of(turn: Turn) -> Messages:
    """Return what was asked and answered; nothing where nothing was answered."""
    if turn.answer is None or not (text := turn.answer.text):
        return []
    asked = turn.messages or [{"role": "user", "content": turn.prompt}]
    return [*asked, {"role": "assistant", "content": text}]


def fresh(messages: Messages) -> Messages:
    """Return what comes after the last answer in them: some clients send again what was said before."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].get("role") == "assistant" and not messages[place].get("tool_calls"):
            return messages[place + 1 :] or messages
    return messages


def _chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(text) for part in content if isinstance(text := part.get("text"), str))
    return 0
