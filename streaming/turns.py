"""Turns: a question and the run that answers it, in a tree that keeps what was asked in other ways.

A turn follows another one. To ask again, or something else in its place, makes a
sibling of it; so what is read is a path, from a first turn to the newest leaf.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder, Encoder

from streaming.answers import Answer
from streaming.errors import InvalidRequest
from streaming.threads import Item, Outline

KIND = "turn"
MAX_TURNS = 1000
TITLE_CHARS = 60


class Turn(Struct, frozen=True, omit_defaults=True):
    stream_id: str
    """Of the run, and the turn's own id."""
    parent: str
    """The turn before; "" for a first one."""
    source: str
    model: str
    prompt: str
    """What was asked, for people."""
    created: float
    """Seconds since 1970."""
    messages: list[dict[str, Any]] = []
    """What the user said in this turn, in OpenAI's shape, images included."""
    instructions: str = ""
    params: dict[str, Any] = {}
    input: Any = None
    """What a runnable was given instead of messages."""
    modes: list[str] = []
    config: dict[str, Any] = {}
    memory: str = ""
    """The name under which a runnable remembers what was said up to here."""
    key: str = ""
    """Of the request, hashed: tells its repetition from somebody else's question."""
    answer: Answer | None = None
    """``None`` until the run has ended and somebody looked."""

    @property
    def title(self) -> str:
        """The beginning of what was asked, cut at a word.

        >>> Turn("st_1", "", "chat", "demo", "Why is the sky blue?  And", 0).title
        'Why is the sky blue? And'
        """
        words = " ".join(self.prompt[: 20 * TITLE_CHARS].split())
        if len(words) <= TITLE_CHARS:
            return words
        cut = words[: TITLE_CHARS + 1].rpartition(" ")[0] or words[:TITLE_CHARS]
        return f"{cut}…"


class Question(Struct, frozen=True):
    """A turn that is asked for; it is given its id and its place when it begins."""

    thread: str
    owner: str
    """Whose the thread becomes, if it is made now."""
    turn: Turn
    follows: str = ""
    """The turn it comes after; "" for the newest."""
    replaces: str = ""
    """A turn in whose place it stands."""


class Shown(Struct, frozen=True):
    """A turn on the path that is shown."""

    turn: Turn
    versions: list[str]
    """The turns that stand in its place, itself among them, in the order they were asked."""


to_json = Encoder().encode
_decode = Decoder(Turn).decode


def turn_of(item: Item) -> Turn:
    return _decode(item.body)


def item_of(turn: Turn, thread_id: str) -> Item:
    return Item(
        thread_id,
        turn.stream_id,
        KIND,
        turn.created,
        to_json(turn),
        turn.parent,
        settled=turn.answer is not None,
    )


class Tree:
    """The turns of a thread, by their ids."""

    def __init__(self, outlines: Sequence[Outline]) -> None:
        self._turns = {each.id: each for each in outlines if each.kind == KIND}

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, turn_id: str) -> bool:
        return turn_id in self._turns

    @property
    def newest(self) -> str:
        """The turn that was added last, which is a leaf; "" where there is none."""
        return next(reversed(self._turns), "")

    @property
    def unsettled(self) -> list[str]:
        return [each.id for each in self._turns.values() if not each.settled]

    def since(self, turn_id: str) -> list[str]:
        """Return the turns that were added after this one."""
        ids = list(self._turns)
        return ids[ids.index(turn_id) + 1 :]

    def path(self, leaf: str) -> list[str]:
        """Return the turns from a first one to ``leaf``."""
        return list(self._up(leaf))[::-1]

    def path_through(self, turn_id: str) -> list[str]:
        """Return the path that goes through a turn, and then on to the newest leaf below it."""
        return next(path for leaf in reversed(self._turns) if turn_id in (path := self.path(leaf)))

    def versions(self, turn_id: str) -> list[str]:
        parent = self._turns[turn_id].parent
        return [each.id for each in self._turns.values() if each.parent == parent]

    def parent_for(self, question: Question) -> str:
        """Return what a question comes after. Raises `InvalidRequest` for turns that are not there."""
        for name, turn_id in (("follows", question.follows), ("replaces", question.replaces)):
            if turn_id and turn_id not in self._turns:
                raise InvalidRequest(
                    f"{name}: there is no such turn in this thread",
                    code="unknown_turn",
                    param=name,
                    status=404,
                )
        if question.replaces:
            return self._turns[question.replaces].parent
        return question.follows or self.newest

    def _up(self, turn_id: str) -> Iterator[str]:
        seen: set[str] = set()
        while turn_id in self._turns and turn_id not in seen:
            seen.add(turn_id)
            yield turn_id
            turn_id = self._turns[turn_id].parent
