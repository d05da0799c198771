"""Which of a user's own objects are to be served, and under what names: ``support=myapp.chains:chain``."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from streaming.errors import SettingsError

EXAMPLES = (
    "explain=examples.chain:chain",
    "docs=examples.rag:chain",
    "history=examples.history:chain",
    "agent=examples.agent:agent",
    "approval=examples.approval:graph",
    "tools=examples.tool_loop:assistant",
    "support=examples.agents_sdk:support",
)
NONE = "none"

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Registration(NamedTuple):
    name: str
    """The value of ``source`` in a request."""
    module: str
    attribute: str
    """With dots where the object is inside of another."""


def read_registrations(at: str, texts: Sequence[str]) -> tuple[Registration, ...]:
    """Return what the setting ``at`` registers. Imports nothing. Raises `SettingsError`.

    >>> read_registrations("RUNNABLES", ["a=b.c:d"])
    (Registration(name='a', module='b.c', attribute='d'),)
    """
    if list(texts) == [NONE]:
        return ()
    found: dict[str, Registration] = {}
    for text in texts:
        name, _, place = (part.strip() for part in text.partition("="))
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{at}: {name[:100]!r} is no name: 1 to 64 of a-z, 0-9, _ and -, as in {EXAMPLES[0]}"
            )
        if name in found:
            raise SettingsError(f"{at}: {name} is there twice")
        if not _PLACE.fullmatch(place):
            raise SettingsError(
                f"{at}: {name}: {place[:100]!r} is not a module and a name in it, as in {EXAMPLES[0]}"
            )
        module, _, attribute = place.partition(":")
        found[name] = Registration(name, module, attribute)
    return tuple(found.values())
