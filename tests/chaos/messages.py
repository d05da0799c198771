"""What the service's wire formats say, as one kind of message."""

import json
from typing import Any

Message = tuple[str, int, str, str]
"""Its id, how many events it stands for, its type, and its text."""


class EventStream:
    """Cuts the service's event streams into ``(id, data)``. Its lines end with LF alone."""

    def __init__(self) -> None:
        self._tail = b""
        self._id = ""
        self._data: list[bytes] = []

    def feed(self, block: bytes) -> list[tuple[str, bytes]]:
        """Return the events that ``block`` completes, with the id each has itself."""
        *lines, self._tail = (self._tail + block).split(b"\n")
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:])
            elif line.startswith(b"id:"):
                self._id = line[4:].decode()
            elif not line and self._data:
                found.append((self._id, b"\n".join(self._data)))
                self._id, self._data = "", []
        return found


class ObjectLines:
    """Cuts newline-delimited JSON into ``("", data)``."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, block: bytes) -> list[tuple[str, bytes]]:
        """Return the lines that ``block`` completes."""
        *lines, self._tail = (self._tail + block).split(b"\n")
        return [("", line) for line in lines if line.strip()]


End = dict[str, Any]
"""``state``, ``why``, and what the format tells besides: ``last_seq``, ``sha``."""


def read_message(wire_format: str, id: str, data: bytes) -> tuple[Message, End | None]:
    """Return what one event of a format says, and how the stream ended if it is the last.

    >>> read_message("native", "1.4", b'{"type":"token","content":"a","n":2}')
    (('1.4', 2, 'token', 'a'), None)
    >>> read_message("text", "1.9", b"[DONE]")[1]
    {'state': 'completed', 'why': '[DONE]'}
    """
    if wire_format == "text":
        if data == b"[DONE]":
            return (id, 0, "done", ""), {"state": "completed", "why": "[DONE]"}
        if data.startswith(b'{"error":'):
            return (id, 0, "error", ""), end_of(json.loads(data))
        return (id, 0, "token", data.decode()), None
    said = json.loads(data)
    if wire_format == "simple":
        kind = ("error" if "error" in said else "done") if said["done"] else "token"
        return (id, 0, kind, said.get("content", "")), end_of(said) if said["done"] else None
    text = said["content"] if said["type"] == "token" else ""
    return (id, said.get("n", 1), said["type"], text), end_of(said) if said.get("done") else None


def end_of(said: dict[str, Any]) -> End:
    """Return how a stream ended, by its last event or by its status."""
    end: End = state_of(said.get("finish_reason"), said.get("error"))
    if said.get("last_seq"):
        end |= {"last_seq": said["last_seq"], "sha": said["text_sha256"]}
    return end


def state_of(finish_reason: str | None, error: dict[str, Any] | None) -> End:
    """Return the state that a last event stands for, and why.

    >>> state_of(None, {"type": "interrupted", "code": "worker_lost"})
    {'state': 'interrupted', 'why': 'interrupted/worker_lost'}
    """
    if error and error["type"] == "cancelled":
        return {"state": "cancelled", "why": "cancelled"}
    if error:
        state = "interrupted" if error["type"] == "interrupted" else "failed"
        return {"state": state, "why": f"{error['type']}/{error['code']}"}
    return {"state": "cancelled" if finish_reason == "cancelled" else "completed", "why": finish_reason}
