"""Read the page's own forms, as a browser without JavaScript sends them."""

import hashlib
from typing import Any

import msgspec
from flask import Request

from streaming.settings import Settings
from streaming.streams import Order, Streams
from streaming.web import _bodies, _orders

NAMED = ("thread", "follows", "replaces", "instructions", "source", "model")


def read(request: Request, settings: Settings, streams: Streams) -> Order:
    """Return what the form asks for: a question, one again, or the answer to a graph's.

    Raises `InvalidRequest`.
    """
    _bodies.check_origin(request)
    request.max_form_memory_size = settings.max_body_bytes
    form = request.form
    asked: dict[str, Any] = {name: form[name] for name in NAMED if form.get(name)}
    # A form's line ends are CRLF, whatever was typed.
    prompt = form.get("prompt", "").replace("\r\n", "\n")
    if "resume" in form:
        asked["input"] = {"resume": form.get("choice") or form["resume"]}
    elif prompt or "replaces" not in asked:
        asked["prompt"] = prompt
    kind, _, name = form.get("answerer", "").partition(":")
    if kind == "runnable":
        asked["source"] = name
    elif kind:
        asked |= {"source": "chat", "model": name}
    if "replaces" in asked:
        asked.pop("follows", None)
    key = form.get("message_id")
    if key:
        _bodies.check_key(key, "message_id")
        # The browser may send the same form again with another question in it.
        digest = hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
        key = f"POST / {key} {digest}"
    return _orders.from_fields(asked, settings, streams, key or None)
