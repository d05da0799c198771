"""What a request may say to a runnable, beside messages: its input, thread, modes and configuration."""

import re
from typing import Any

import msgspec

from streaming.errors import InvalidRequest
from streaming.runnables import Registered
from streaming.settings import Settings

JSON = dict[str, Any]

MAX_TAGS = 50
MAX_RECURSION = 1000
MAX_SHOWN_CHARS = 500
# Not one or two dots, which clients take for a way out of `/threads`.
THREAD_PATTERN = r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,128}"
CONFIG = ("tags", "metadata", "configurable", "recursion_limit")


def check_thread(thread: Any, param: str = "thread") -> str:
    """Return the name of a conversation. Raises `InvalidRequest`."""
    if not isinstance(thread, str) or not re.fullmatch(THREAD_PATTERN, thread):
        raise _wrong(param, "1 to 128 of A-Z, a-z, 0-9, dot, underscore, colon and hyphen, not . or ..")
    return thread


def check_modes(asked: str | list[str], runnable: Registered) -> tuple[str, ...]:
    modes = (asked,) if isinstance(asked, str) else tuple(asked)
    for mode in modes:
        if mode not in runnable.modes:
            known = ", ".join(runnable.modes) or "none"
            raise InvalidRequest(
                f"mode: {runnable.name} has no mode {mode[:100]!r}; known: {known}",
                code="unknown_mode",
                param="mode",
            )
    if len(set(modes)) < len(modes):
        raise _wrong("mode", "one is there twice")
    if len(modes) > 1 and "events" in modes:
        raise _wrong("mode", "events stands by itself")
    return modes


def check_config(asked: JSON, runnable: Registered) -> JSON:
    """Return the configuration of a run. Raises `InvalidRequest` with the field at fault."""
    if asked and runnable.configurable is None:
        raise _wrong("config", f"{runnable.name} has nothing to configure")
    for name in asked:
        if name not in CONFIG:
            raise InvalidRequest(
                f"config.{name[:100]}: there is no such field; known: {', '.join(CONFIG)}",
                code="unknown_field",
                param=f"config.{name[:100]}",
            )
    configurable = _object(asked, "configurable")
    for name in configurable:
        if name not in (runnable.configurable or ()):
            known = ", ".join(sorted(runnable.configurable or ())) or "none"
            raise InvalidRequest(
                f"config.configurable.{name[:100]}: {runnable.name} does not declare it; known: {known}",
                code="unknown_field",
                param=f"config.configurable.{name[:100]}",
            )
    if "thread_id" in configurable:
        check_thread(configurable["thread_id"], "config.configurable.thread_id")
    tags = asked.get("tags") or []
    if (
        not isinstance(tags, list)
        or len(tags) > MAX_TAGS
        or not all(isinstance(tag, str) and len(tag) <= MAX_SHOWN_CHARS for tag in tags)
    ):
        raise _wrong("config.tags", f"up to {MAX_TAGS} short texts")
    limit = asked.get("recursion_limit")
    if limit is not None and (
        not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_RECURSION
    ):
        raise _wrong("config.recursion_limit", f"a whole number from 1 to {MAX_RECURSION}")
    found = {
        "tags": tags,
        "metadata": _object(asked, "metadata"),
        "configurable": configurable,
        "recursion_limit": limit,
    }
    return {name: value for name, value in found.items() if value}


def check_input(given: Any, settings: Settings) -> Any:
    """Refuse an input with more text than a prompt may have. Raises `InvalidRequest`."""
    chars = text_chars(given)
    if chars > settings.max_prompt_chars:
        raise InvalidRequest(
            f"input: {chars} characters, at most {settings.max_prompt_chars}",
            code="too_long",
            param="input",
            status=413,
        )
    return given


def shown(given: Any) -> str:
    """Return what a person would recognise an input by."""
    text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"


def _object(asked: JSON, name: str) -> JSON:
    value = asked.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(f"config.{name}", "an object")
    return value


def text_chars(value: Any) -> int:
    """Return how much text there is in a JSON value, names of fields included."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(text_chars(each) for pair in value.items() for each in pair)
    return sum(map(text_chars, value)) if isinstance(value, list) else 0


def _wrong(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", code="wrong_value", param=param)
