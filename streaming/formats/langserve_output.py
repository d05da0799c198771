"""LangServe's ``/invoke``: the output of a run, whole, when it has ended."""

from typing import Any

from streaming.events import Done, Error, Record, Start, decode, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._langserve import CANCELLED, failure, part_of, tells_apart


class OutputFormat:
    media_type = "application/json"
    resumes = False
    from_start = True

    def __init__(self, wants: Wants) -> None:
        self._apart = tells_apart(wants)
        self._run_id = ""
        self._parts: list[Any] = []

    def encode(self, record: Record) -> tuple[Message, ...]:
        match event := decode(record.payload):
            case Start(stream_id):
                self._run_id = stream_id
            case Error() as last:
                return (Message(failure(last).data),)
            case Done("cancelled"):
                return (Message(CANCELLED.data),)
            case Done():
                return (Message(json_line(self._answer())),)
            case _:
                self._parts += part_of(event, self._apart, "output")
        return ()

    def _answer(self) -> dict[str, Any]:
        output = next(iter(self._parts), None) if self._apart else "".join(self._parts)
        metadata = {"run_id": self._run_id, "feedback_tokens": []}
        return {"output": output, "callback_events": [], "metadata": metadata}


def create(wants: Wants) -> WireFormat:
    return OutputFormat(wants)
