"""What a request says of the thread it belongs to. Every refusal names the field at fault."""

from typing import TYPE_CHECKING, Any

import msgspec
from flask import request
from msgspec import UNSET
from msgspec.structs import replace

from streaming.errors import InvalidRequest, NotFound
from streaming.sources import Prompt
from streaming.streams import Streams
from streaming.turns import Question, Turn
from streaming.web import _runnable_orders as orders
from streaming.web import _visitors

if TYPE_CHECKING:
    from streaming.web._orders import Create

LEADING = ("system", "developer")


def check(create: "Create") -> None:
    """Raise `InvalidRequest` for fields that do not go together."""
    if create.thread is not None:
        orders.check_thread(create.thread)
    for name, given in (("follows", create.follows), ("replaces", create.replaces)):
        if given and not create.thread:
            raise InvalidRequest(f"{name}: it needs a thread", code="required", param="thread")
    if create.follows and create.replaces:
        raise InvalidRequest(
            "follows: not with replaces, which says the place", code="wrong_value", param="follows"
        )
    if create.continues and create.thread:
        raise InvalidRequest(
            "continues: not in a thread, whose history has the text so far; ask on",
            code="wrong_value",
            param="continues",
        )


def asked_again(create: "Create", streams: Streams) -> "Create":
    """Return a request that has the question of the turn it replaces, if it brings none of its own."""
    if not create.replaces or [create.prompt, create.messages, create.input].count(None) < 3:
        return create
    turn = _replaced(create, streams)
    found: dict[str, Any] = {"source": turn.source if create.source is None else create.source}
    if turn.messages:
        found["messages"] = turn.messages
    elif turn.input is not None and found["source"] == turn.source:
        found["input"] = turn.input
    else:
        found["prompt"] = turn.prompt
    if create.instructions is None and turn.input is None:
        found["instructions"] = turn.instructions or None
    if found["source"] == turn.source:
        found["model"] = create.model or turn.model
        if not msgspec.to_builtins(create.params):
            found["params"] = msgspec.convert(turn.params, type(create.params))
        if create.mode is UNSET and turn.modes:
            found["mode"] = turn.modes
        if create.config is UNSET and turn.config:
            found["config"] = turn.config
    return replace(create, **found)


def question_of(create: "Create", source: str, prompt: Prompt, said: str) -> Question | None:
    """Return what is asked as a turn, where a thread is named."""
    if not create.thread:
        return None
    leading = 0
    while leading < len(prompt.messages) and prompt.messages[leading]["role"] in LEADING:
        leading += 1
    told = [message.get("content") for message in prompt.messages[:leading]]
    turn = Turn(
        stream_id="",
        parent="",
        source=source,
        model=prompt.model,
        prompt=said,
        created=0,
        messages=prompt.messages[leading:],
        instructions="\n\n".join(text for text in told if isinstance(text, str)),
        params=prompt.params,
        input=prompt.input,
        modes=list(prompt.modes),
        config=prompt.config,
    )
    owner = _visitors.owner_of(request)
    return Question(create.thread, owner, turn, create.follows or "", create.replaces or "")


def said_in(given: Any) -> Any:
    """Return the answer to an interrupt where an input is one, else the input."""
    return given["resume"] if isinstance(given, dict) and set(given) == {"resume"} else given


def _replaced(create: "Create", streams: Streams) -> Turn:
    try:
        streams.threads.get(create.thread or "")
        return streams.threads.asked(create.thread or "", create.replaces or "")
    except NotFound:
        raise InvalidRequest(
            "replaces: there is no such turn in this thread",
            code="unknown_turn",
            param="replaces",
            status=404,
        ) from None
