"""An upstream that speaks OpenAI's Responses, and misbehaves as told.

``python -m tests.live.responses_upstream`` is `upstream.py` with one route more:
``POST /v1/responses``. Its scripts are the same, in the last text of the user;
the plays are those of chat completions that do not depend on their chunks, and

    tools, reasoning, refusal, incomplete, filtered, logprobs, padded, unknown, silent_thought
    failed, error (after ``after`` tokens), whole, whole_failed, whole_unfinished

``missing`` (a status: 404, 405 …) answers as a server without the route, and
``said`` replaces the body of that answer, which comes after ``missing_ms``.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.live.upstream import (
    LEAK,
    MAX_HEAD_BYTES,
    Connection,
    Entry,
    Hangup,
    Player,
    Request,
    Script,
    Server,
    contents,
    script_of,
)

CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "status": "completed"}
ARGUMENTS = '{"city": "Paris", "days": 3}'
MESSAGE = "msg_1"


class ResponsesServer(Server):
    """Also plays scripts as responses."""

    async def _answer(self, request: Request, connection: Connection) -> None:
        if request.method == "POST" and urlsplit(request.target).path == "/v1/responses":
            await self._response(request, connection)
        else:
            await super()._answer(request, connection)

    async def _response(self, request: Request, connection: Connection) -> None:
        received = time.monotonic()
        body = json.loads(request.body)
        script = script_of({**body, "messages": body["input"]})
        self._requests += 1
        token = str(script.get("token", self._requests))
        entry = connection.note(token, body, request, received)
        self._log[token].append(entry)
        if len(self._log[token]) > script.get("attempts_fail", sys.maxsize):
            script = {**script, "play": "ok"}
        entry.play = f"responses {script.get('play', 'ok')}"
        self._playing += 1
        try:
            await ResponsePlayer(connection.writer, entry, script).play()
        finally:
            self._playing -= 1


class ResponsePlayer(Player):
    """Plays one script as a response."""

    def __init__(self, writer: asyncio.StreamWriter, entry: Entry, script: Script) -> None:
        super().__init__(writer, entry, script)
        self._sequence = 0

    async def play(self) -> None:
        if status := self._script.get("missing"):
            await self._pause("missing_ms")
            said = self._script.get("said", {"detail": f"{LEAK}: Not Found"})
            await self._answer(status, said if isinstance(said, dict) else str(said).encode())
            self._entry.finished = True
            return
        await super().play()

    # Whole answers

    async def play_whole(self) -> None:
        words = contents(self._script)
        self._entry.sent.extend(words)
        await self._answer(200, self._response("completed", [self._message("".join(words))]))

    async def play_whole_failed(self) -> None:
        error = {"code": "rate_limit_exceeded", "message": f"{LEAK} {self._key}"}
        await self._answer(200, self._response("failed", []) | {"error": error})

    async def play_whole_unfinished(self) -> None:
        await self._answer(200, self._response("in_progress", []))

    # Streams

    async def _send_token(self, word: str) -> None:
        pace_seconds = self._script.get("pace_ms", 0) / 1000
        if self._due is None:
            self._due = time.monotonic()
            for event in self._begin():
                await self._say(event)
        elif pace_seconds:
            self._due += pace_seconds
            await asyncio.sleep(max(0.0, self._due - time.monotonic()))
        self._index += 1
        await self._say(self._delta(word))

    async def _end(self, *, finish_body: bool = True) -> None:
        if self._script.get("finish", "stop") is not None:
            for event in self._finish("".join(self._entry.sent)):
                await self._say(event)
        if self._script.get("done", True) and self._script.get("finish", "stop"):
            await self._send_event("[DONE]")  # as some servers do
        if finish_body:
            await self._finish_body()

    async def _send_raw(self, value: dict[str, Any] | str) -> None:
        if isinstance(value, str):
            await self._send_event(value)
        else:
            await self._say(value)
            await asyncio.sleep(self._script.get("pace_ms", 0) / 1000)

    async def _say(self, event: dict[str, Any]) -> None:
        """Send one event, numbered, with its name before it."""
        numbered = {**event, "sequence_number": self._sequence}
        self._sequence += 1
        if event["type"] == "response.output_text.delta":
            self._mark_token(event["delta"])
        await self._send_body(f"event: {event['type']}{self._newline}".encode())
        indent = 1 if self._script.get("multiline") else None
        await self._send_event(json.dumps(numbered, ensure_ascii=False, indent=indent))

    # Faults inside the stream

    async def fault_failed(self) -> None:
        code = self._script.get("code", "server_error")
        failed = self._response("failed", []) | {"error": {"code": code, "message": f"{LEAK} {self._key}"}}
        await self._say({"type": "response.failed", "response": failed})
        await self._finish_body()
        raise Hangup

    async def fault_error(self) -> None:
        code = self._script.get("code", "server_error")
        await self._say({"type": "error", "code": code, "message": f"{LEAK} {self._key}", "param": None})
        await self._finish_body()
        raise Hangup

    async def fault_cut(self) -> None:
        half = json.dumps(self._delta("never whole"))[:-20]
        await self._send_body(f"data: {half}".encode())
        raise Hangup(reset=self._script.get("reset", False))

    async def fault_early_done(self) -> None:
        await self._send_event("[DONE]")

    async def fault_after_end(self) -> None:
        """Send the whole answer, then more, and never end the body."""
        await self._end(finish_body=False)
        await self._send_event(json.dumps(self._delta("too late ")))
        await asyncio.Event().wait()

    async def fault_surrogates(self) -> None:
        for half in ("\ud83d", "\ude00"):
            await self._send_event(json.dumps(self._delta(half)))
        self._entry.sent.append("\N{GRINNING FACE}")

    async def fault_silent_thought(self) -> None:
        """Begin the response, and then think for ever."""
        for event in self._begin():
            await self._say(event)
        await asyncio.Event().wait()

    # Other events than plain text

    def chunks_tools(self) -> Iterator[dict[str, Any]]:
        at = {"item_id": "fc_1", "output_index": 0}
        call = {**CALL, "arguments": ARGUMENTS}
        yield self._created()
        begun = {**CALL, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
        for start in range(0, len(ARGUMENTS), 10):
            part = ARGUMENTS[start : start + 10]
            yield {"type": "response.function_call_arguments.delta", **at, "delta": part}
        done = {"type": "response.function_call_arguments.done", **at, "name": "weather"}
        yield {**done, "arguments": ARGUMENTS}
        yield {"type": "response.output_item.done", "output_index": 0, "item": call}
        yield {"type": "response.completed", "response": self._response("completed", [call])}

    def chunks_reasoning(self) -> Iterator[dict[str, Any]]:
        item = {"type": "reasoning", "id": "rs_1", "summary": []}
        yield self._created()
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        for word in ("first ", "second "):
            at = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
            yield {"type": "response.reasoning_text.delta", **at, "delta": word}
        at = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
        yield {"type": "response.reasoning_summary_text.delta", **at, "delta": "in short"}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield from self._text(output_index=1)

    def chunks_refusal(self) -> Iterator[dict[str, Any]]:
        yield self._created()
        for word in ("I cannot ", "say."):
            at = {"item_id": MESSAGE, "output_index": 0, "content_index": 0}
            yield {"type": "response.refusal.delta", **at, "delta": word}
        yield {"type": "response.completed", "response": self._response("completed", [])}

    def chunks_incomplete(self) -> Iterator[dict[str, Any]]:
        yield from self._text(end=False)
        why = {"incomplete_details": {"reason": "max_output_tokens"}}
        yield {"type": "response.incomplete", "response": self._response("incomplete", []) | why}

    def chunks_filtered(self) -> Iterator[dict[str, Any]]:
        yield from self._text(end=False)
        why = {"incomplete_details": {"reason": "content_filter"}}
        yield {"type": "response.incomplete", "response": self._response("incomplete", []) | why}

    def chunks_logprobs(self) -> Iterator[dict[str, Any]]:
        for event in self._text():
            if event["type"] == "response.output_text.delta":
                event["logprobs"] = [{"token": event["delta"], "logprob": -0.5, "top_logprobs": []}]
            yield event

    def chunks_padded(self) -> Iterator[dict[str, Any]]:
        for place, event in enumerate(self._text()):
            if event["type"].endswith(".delta"):
                event["obfuscation"] = "x" * (place % 5)
            yield event

    def chunks_unknown(self) -> Iterator[dict[str, Any]]:
        yield {"type": "keepalive"}
        for event in self._text():
            event["x_top"] = {"deep": [1, {"er": None}]}
            yield event
            if event["type"] == "response.created":
                yield {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 0}

    def _text(self, output_index: int = 0, end: bool = True) -> Iterator[dict[str, Any]]:
        yield from self._begin()
        for word in contents(self._script):
            yield self._delta(word) | {"output_index": output_index}
        if end:
            yield from self._finish("".join(contents(self._script)))

    def _begin(self) -> Iterator[dict[str, Any]]:
        at = {"item_id": MESSAGE, "output_index": 0, "content_index": 0}
        yield self._created()
        yield {"type": "response.in_progress", "response": self._response("in_progress", [])}
        item = {**self._message(""), "content": [], "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.content_part.added", **at, "part": self._part("")}

    def _finish(self, text: str) -> Iterator[dict[str, Any]]:
        at = {"item_id": MESSAGE, "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.done", **at, "logprobs": [], "text": text}
        yield {"type": "response.content_part.done", **at, "part": self._part(text)}
        item = self._message(text)
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield {"type": "response.completed", "response": self._response("completed", [item])}

    def _created(self) -> dict[str, Any]:
        return {"type": "response.created", "response": self._response("in_progress", [])}

    def _delta(self, word: str) -> dict[str, Any]:
        at = {"item_id": MESSAGE, "output_index": 0, "content_index": 0}
        return {"type": "response.output_text.delta", **at, "logprobs": [], "delta": word}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _message(self, text: str) -> dict[str, Any]:
        content = [self._part(text)]
        return {
            "type": "message",
            "id": MESSAGE,
            "role": "assistant",
            "status": "completed",
            "content": content,
        }

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        ended = status in ("completed", "incomplete")
        tokens = max(1, len(self._entry.sent))
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7 + tokens,
        }
        return {
            "id": f"resp_{self._entry.token}",
            "object": "response",
            "created_at": 1700000000,
            "model": self._entry.body.get("model", "test-model"),
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage if ended else None,
        }


async def _main(port: int) -> None:
    parent = os.getppid()
    serving = await asyncio.start_server(
        ResponsesServer().serve, "127.0.0.1", port, limit=MAX_HEAD_BYTES, backlog=1024
    )
    print(serving.sockets[0].getsockname()[1], flush=True)
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--port", type=int, default=0)
    asyncio.run(_main(options.parse_args().port))
