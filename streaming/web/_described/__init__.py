"""What each address says of itself; a file for each blueprint, of the same name.

To describe a new address, add an `Operation` to the ``OPERATIONS`` of that file.
A test fails for an address that is not described, and for a description of none.
A file may also have ``NAMES``: what to call its types, where their own names say too little.
"""

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from streaming.openapi import Operation, Service, Tag
from streaming.settings import Settings

VERSION = "1.0.0"
"""Of the API: the first number changes when a client has to."""
TAGS = (
    Tag("Streams", "Create a run, follow it from any place in it, look at it, cancel it, erase it."),
    Tag("Threads", "Conversations, kept for weeks."),
    Tag("OpenAI", "What clients of OpenAI's API speak. Its runs can be followed under `/streams` too."),
    Tag("Runnables", "Chains, graphs and agents that were registered here, in LangServe's dialect."),
    Tag("ChatKit", "What OpenAI's chat component speaks."),
    Tag("Page", "The page in the browser, and the forms it works by without a script."),
    Tag("Operation", "Health, and this description."),
)
ABOUT = """\
A run of a language model is written once to a log. Any number of readers follow it, from any place in it,
each in its own format. A lost connection loses nothing and repeats nothing.

A parameter of an address is given once. One without a value is not one that was left out: a number, a flag, a
day or one of several words is refused when it is empty; a text or a cursor may be.

Every answer has `X-Request-Id`. A refusal is JSON: `error` holds `message`, `type`, `code`, `param` and
`retryable`. Once an event stream has begun, an error is its last event, with the same object.

New fields, events and types of error may be added at any time: pass over what you do not know."""
METHODS = ("POST", "GET", "PATCH", "DELETE")
SESSION_COOKIE = "__Host-sluice"


def operations() -> list[Operation]:
    """Return all there are: by tag, then by path, and what makes a thing before what shows it."""
    found = [each for module in _modules() for each in module.OPERATIONS]
    tags = [tag.name for tag in TAGS]
    return sorted(found, key=lambda each: (tags.index(each.tag), each.path, METHODS.index(each.method)))


def service(settings: Settings) -> Service:
    """Return what is said of all of it."""
    names: dict[Any, str] = {}
    for module in _modules():
        names |= getattr(module, "NAMES", {})
    is_open = getattr(settings, "auth", "open") == "open"
    return Service("Sluice", VERSION, ABOUT, TAGS, names, is_open, SESSION_COOKIE)


def _modules() -> list[ModuleType]:
    found = pkgutil.iter_modules(__path__)
    return [import_module(f"{__name__}.{each.name}") for each in found if not each.name.startswith("_")]
