"""OpenAI's published schemas: check a value against one, and make examples of one."""

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FILE = Path(__file__).parent / "contracts" / "openai_schemas.json"
DESCRIPTION: dict[str, Any] = json.loads(FILE.read_text())
SCHEMAS: dict[str, Any] = DESCRIPTION["components"]["schemas"]


def _event_schemas() -> dict[str, str]:
    names = [each["$ref"].rpartition("/")[2] for each in SCHEMAS["ResponseStreamEvent"]["anyOf"]]
    return {SCHEMAS[name]["properties"]["type"]["enum"][0]: name for name in names}


RESPONSE_EVENTS = _event_schemas()
"""The name of the schema of each type of event that Responses have."""


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **DESCRIPTION})


def check(name: str, value: Any) -> None:
    """Fail if ``value`` is not what the schema ``name`` says."""
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in _validator(name).iter_errors(value)
    ]
    assert not errors, f"not a {name}: {errors}"


def check_event(event: dict[str, Any]) -> None:
    """Fail if an event of Responses is not what OpenAI describes."""
    assert event["type"] in RESPONSE_EVENTS, f"no event has the type {event['type']!r}"
    check(RESPONSE_EVENTS[event["type"]], event)


def example(name: str) -> Any:
    """Return a small value of the schema ``name``."""
    return _example({"$ref": f"#/components/schemas/{name}"})


def _example(schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _example(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "allOf" in schema:
        return _example(_joined(schema))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _example(schema[several][0])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {field: _example(fields[field]) for field in schema.get("required", ()) if field in fields}
        case "array":
            return [_example(schema["items"])] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
    return "x"


def _joined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return one schema of an object for all that it must be at once."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    joined: dict[str, Any] = {
        "type": "object",
        "properties": dict(schema.get("properties", {})),
        "required": list(schema.get("required", ())),
    }
    for part in map(_joined, schema.get("allOf", ())):
        joined["properties"] |= part["properties"]
        joined["required"] += part["required"]
    return joined
