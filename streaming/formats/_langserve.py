"""What LangServe's formats share: which output a run has, and how an error is told.

A run that was asked for ``chunks`` or ``output`` tells them apart from the text
(`StateUpdate`); of any other the text is what it yields, and its output.
"""

from typing import Any

from streaming.errors import Told
from streaming.events import Error, Event, StateUpdate, Token, json_line
from streaming.formats import Message, Wants

END = Message(b"", event="end")


def tells_apart(wants: Wants) -> bool:
    """Say whether the run was asked for its own chunks or output."""
    modes = wants.request.get("modes")
    return isinstance(modes, list) and not {"chunks", "output"}.isdisjoint(modes)


def part_of(event: Event, apart: bool, mode: str) -> tuple[Any, ...]:
    """Return what this event is to LangServe's client: one part of the output, or nothing."""
    match event:
        case StateUpdate(told, data) if apart and told == mode:
            return (data,)
        case Token(content) if not apart:
            return (content,)
    return ()


def failure(last: Error) -> Message:
    status = Told(last.error, last.status).status
    return Message(json_line({"status_code": status, "message": last.error.message}), event="error")


CANCELLED = Message(json_line({"status_code": 499, "message": "the run was cancelled"}), event="error")
