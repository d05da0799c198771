"""What a runnable says of itself: what may be configured, and the schemas of what goes in and out.

By their methods, without importing a framework.
"""

import re
import warnings
from typing import Any, Literal, get_type_hints

JSON = dict[str, Any]
Which = Literal["input", "output", "config"]

# A model that its author made configurable in all its fields would else ask, with the author's key,
# whatever server a request names. With a prefix too, as `init_chat_model` has them.
_OF_THE_OWNER = re.compile(
    r"(?:^|_)(?:api_?key|(?:base|proxy)_?url|api_?base|endpoint|proxy|proxies|organization|(?:default_)?headers"
    r"|(?:default_)?query|extra_body|token|secret|password|credentials|http_(?:async_)?client|model_provider)$",
    re.IGNORECASE,
)
THREADS = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns"})
TEXT: JSON = {"title": "Text", "type": "string"}
MESSAGES: JSON = {
    "title": "Messages",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "object"}},
        {
            "type": "object",
            "properties": {"messages": {"type": "array", "items": {"type": "object"}}},
            "required": ["messages"],
        },
    ],
}


def configurable_of(found: Any) -> frozenset[str] | None:
    """Return the names of what a run may configure; ``None`` where that is nothing."""
    specs = getattr(found, "config_specs", None)
    if not isinstance(specs, list):
        return None
    names = {spec.id for spec in specs} | {"thread_id"}
    if hasattr(found, "checkpointer"):  # a graph: any may have threads here
        names |= THREADS | _fields(getattr(found, "context_schema", None))
    return frozenset(name for name in names if not name.startswith("__") and not _OF_THE_OWNER.search(name))


def schema_of(found: Any, which: Which) -> JSON:
    """Return the JSON schema of what goes in or out, or of a run's configuration."""
    if which == "config":
        names = sorted(configurable_of(found) or ())
        fields: JSON = {
            "tags": {"type": "array", "items": {"type": "string"}},
            "metadata": {"type": "object"},
            "recursion_limit": {"type": "integer", "minimum": 1},
        }
        described = {spec.id: _described(spec) for spec in getattr(found, "config_specs", ())}
        properties = {name: described.get(name, {"title": name}) for name in names}
        fields["configurable"] = {"type": "object", "properties": properties}
        return {"title": "Config", "type": "object", "properties": fields}
    make = getattr(found, f"get_{which}_jsonschema", None)
    if make is None:
        return MESSAGES if which == "input" else TEXT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema: JSON = make()
        return schema
    except Exception:  # types of the user's own may have no form in JSON
        return {"title": which.capitalize()}


def _described(spec: Any) -> JSON:
    described = {"title": spec.name or spec.id, "description": spec.description, "default": spec.default}
    simple = (str, int, float, bool)
    return {name: value for name, value in described.items() if isinstance(value, simple)}


def _fields(schema: Any) -> set[str]:
    if schema is None:
        return set()
    try:
        return set(getattr(schema, "model_fields", None) or get_type_hints(schema))
    except Exception:  # a forward reference that only its author can resolve
        return set(getattr(schema, "__annotations__", ()))
