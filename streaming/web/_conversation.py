"""What the page shows: a conversation's turns, or one run that belongs to none."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from streaming.answers import Answer
from streaming.streams import Streams
from streaming.turns import Shown as Placed
from streaming.web import _parts, _words

TITLE_CHARS = 60
MODEL_SOURCES = ("chat", "responses")


class Shown(NamedTuple):
    """A question and its answer."""

    stream_id: str
    question: str
    images: list[str]
    """As data URLs."""
    source: str
    model: str
    """Who answers, for people."""
    asked_model: str
    """What a repeated request is to name; empty where the source has its own."""
    state: str
    words: str
    hint: str
    parts: list[Any]
    cursor: str
    numbers: str
    versions: list[str]
    """Stream ids of the turns that stand at the same place, oldest first, this one among them."""
    at: dict[str, str]
    """The page's parameters that show it."""
    created: int
    """Seconds since 1970; 0: not known."""


class Asked(NamedTuple):
    """A question of a graph to a person, and where its answer goes."""

    question: str
    details: str
    answers: list[str]
    source: str
    thread: str
    stream_id: str
    open: bool
    """Nobody has answered yet."""
    key: str
    kind: str = "interrupt"


class View(NamedTuple):
    title: str
    turns: list[Shown]
    thread: str = ""
    stream_id: str = ""
    """Of a run that is shown by itself."""
    chosen: str = ""
    """Who was asked last, as the page's choice names them."""
    instructions: str = ""

    @property
    def follows(self) -> str:
        """The turn that a new question comes after."""
        return self.turns[-1].stream_id if self.thread and self.turns else ""


def of_thread(streams: Streams, thread_id: str, leaf: str = "") -> View:
    """Return a conversation along its newest path, or along that through the turn ``leaf``.

    Raises `NotFound`.
    """
    thread = streams.threads.get(thread_id)
    placed = streams.threads.turns(thread_id, leaf)
    turns = [_of_turn(each, thread_id, is_last=each is placed[-1], leaf=leaf) for each in placed]
    last = placed[-1].turn if placed else None
    return View(
        thread.title or "Conversation",
        turns,
        thread_id,
        chosen=_chosen(last.source, last.model) if last else "",
        instructions=last.instructions if last else "",
    )


def of_stream(streams: Streams, stream_id: str) -> View:
    """Return a run by itself. Raises as `Streams.answer`."""
    asked = streams.asked(stream_id)
    answer = streams.answer(stream_id)
    source, model = asked["source"], asked["model"]
    turn = _shown(
        answer,
        stream_id=stream_id,
        question=asked["prompt"],
        images=[],
        source=source,
        model=model,
        versions=[stream_id],
        at={"stream": stream_id},
        created=0,
    )
    parts = _with_forms(turn.parts, source, "", stream_id, is_last=turn.state != "busy")
    title = " ".join(turn.question.split())
    if len(title) > TITLE_CHARS:
        title = title[:TITLE_CHARS].rsplit(" ", 1)[0] + "…"
    return View(title, [turn._replace(parts=parts)], stream_id=stream_id, chosen=_chosen(source, model))


def _of_turn(placed: Placed, thread_id: str, *, is_last: bool, leaf: str) -> Shown:
    turn = placed.turn
    answer = turn.answer or Answer("running", [], "0.0")
    shown = _shown(
        answer,
        stream_id=turn.stream_id,
        question=turn.prompt,
        images=images_of(turn.messages),
        source=turn.source,
        model=turn.model,
        versions=placed.versions,
        at={"thread": thread_id} | ({"turn": leaf} if leaf else {}),
        created=int(turn.created),
    )
    forms = _with_forms(shown.parts, turn.source, thread_id, turn.stream_id, is_last=is_last)
    return shown._replace(parts=forms)


def _shown(answer: Answer, *, model: str, source: str, **asked: Any) -> Shown:
    end = _words.ending(answer.state, answer.finish_reason, answer.error)
    return Shown(
        source=source,
        model=model,
        asked_model=model if source in MODEL_SOURCES else "",
        state=end.state,
        words=end.words,
        hint=end.hint,
        parts=list(_parts.parts_of(answer.events)),
        cursor=answer.cursor,
        numbers=_words.numbers(answer.metrics),
        **asked,
    )


def images_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    """Return the images a user sent that the page can show: those that came with the request.

    >>> images_of([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}])
    []
    """
    found = []
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            image = part.get("image_url") if part.get("type") == "image_url" else None
            url = image.get("url") if isinstance(image, dict) else None
            if isinstance(url, str) and url.startswith("data:image/"):
                found.append(url)
    return found


def _with_forms(
    parts: Sequence[Any], source: str, thread: str, stream_id: str, *, is_last: bool
) -> list[Any]:
    """Return the parts, their questions to a person with where the answer goes."""

    def form(part: _parts.Question) -> Asked:
        key = secrets.token_hex(16)
        return Asked(
            part.question,
            part.details,
            part.answers,
            source,
            thread,
            stream_id,
            bool(is_last and thread),
            key,
        )

    return [form(part) if isinstance(part, _parts.Question) else part for part in parts]


def _chosen(source: str, model: str) -> str:
    return f"model:{model}" if source in MODEL_SOURCES else f"runnable:{source}"
