"""Tell events to people: which of them are shown, where, and in which words."""

import time
from typing import Any

from streaming.terminal.escaping import json_line
from streaming.terminal.screen import Screen

LEAST_SECONDS = 0.5
"""Of tokens, before a rate can be told."""
_DOING = {
    "queued": "waiting for a free place",
    "connecting": "connecting to the model",
    "thinking": "thinking",
    "retrying": "the model did not answer: asking again",
    "stalled": "the model is silent",
}
_ENDED = {
    "length": "ended at the length limit",
    "content_filter": "ended by the model's content filter",
    "cancelled": "stopped; this is the text so far",
}


class Diverged(Exception):
    """The stream came again from its start with another text than the one already printed."""


class Telling:
    """Prints an answer once, also when its stream comes again from the start.

    A program gets the events ``as_json``, a reset among them.
    """

    def __init__(self, screen: Screen, as_json: bool) -> None:
        self._screen = screen
        self._as_json = as_json
        self._tokens = 0
        self._began = 0.0
        self._rate = 0.0
        self._printed = ""
        self._again: str | None = None
        """What has come since the last reset; `None` before there was one."""

    def tell(self, event: dict[str, Any], cursor: str) -> None:
        """Show one event. Raises `Diverged`, and `OutputClosed`."""
        if self._as_json:
            self._screen.line(json_line({**event, "cursor": cursor}))
        elif self._again is None or event["type"] in ("token", "reset", "done"):
            self._tell_people(event)
        self._tell_progress(event)

    def _tell_people(self, event: dict[str, Any]) -> None:
        screen = self._screen
        match event:
            case {"type": "token", "content": str(content)}:
                screen.text(self._new(content))
            case {"type": "reasoning", "content": str(content)}:
                screen.reasoning(content)
            case {"type": "tool_call", "tool": tool}:
                screen.note(f"→ {tool} {json_line(event.get('args'))}")
            case {"type": "tool_result", "tool": tool}:
                sign = "✗" if event.get("failed") else "←"
                screen.note(f"{sign} {tool} {json_line(event.get('result'))}")
            case {"type": "sources", "documents": list(documents)}:
                for document in documents:
                    if isinstance(document, dict):
                        screen.note(f"[{document.get('id')}] {document.get('title')}")
            case {"type": "interrupt"}:
                screen.note(f"It waits for an answer: {json_line(event.get('value'))}")
                screen.note('Answer in the same --thread, with --input \'{"resume": "…"}\'')
            case {"type": "status", "status": "fallback"}:
                screen.note(f"asking {event.get('model')} instead")
            case {"type": "reset"}:
                self._again = ""
            case {"type": "done", "finish_reason": reason} if reason in _ENDED:
                screen.note(_ENDED[reason])

    def _tell_progress(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "token"}:
                self._began = self._began or time.monotonic()
                self._tokens += 1
                self._screen.progress(self._measured())
            case {"type": "metrics", "metrics": {"tokens": int(tokens), **others}}:
                # The service's count; between two of them the tokens are counted here.
                self._tokens = tokens
                rate = others.get("tokens_per_second")
                self._rate = rate if isinstance(rate, int | float) else self._rate
            case {"type": "status", "status": str(status)}:
                self._screen.progress(_DOING.get(status, status), at_once=True)

    def _measured(self) -> str:
        seconds = time.monotonic() - self._began
        rate = self._rate or (self._tokens / seconds if seconds > LEAST_SECONDS else 0.0)
        said = "1 token" if self._tokens == 1 else f"{self._tokens} tokens"
        return said + (f" · {rate:.0f}/s · {seconds:.0f} s" if rate else "")

    def _new(self, content: str) -> str:
        """Return what of ``content`` was not printed before."""
        if self._again is None:
            self._printed += content
            return content
        self._again += content
        if self._printed.startswith(self._again):
            return ""
        if not self._again.startswith(self._printed):
            raise Diverged
        new = self._again[len(self._printed) :]
        self._printed, self._again = self._again, None
        return new
