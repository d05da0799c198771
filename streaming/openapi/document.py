"""Make OpenAPI 3.1 of what the addresses say of themselves.

Source: OpenAPI Specification 3.1.1. What an event stream holds is said by
``itemSchema`` only from 3.2 on; here it stands as ``x-itemSchema``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from streaming.openapi import JSON, Answer, Body, Events, Operation, Parameter, Service, Shape
from streaming.openapi._refusals import BY_ACCESS, SHAPES, name_of, responses
from streaming.openapi._schemas import Schemas

EVENT_STREAM = "text/event-stream"


def document(operations: Sequence[Operation], service: Service) -> JSON:
    """Return the description of ``operations``, in their order."""
    schemas = Schemas([*_shapes(operations), *SHAPES], service.names)
    paths: JSON = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas, service)
    used = {name_of(status, each.dialect) for each in operations for status in _errors(each)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": service.title,
            "version": service.version,
            "summary": "Durable event streams of language models",
            "description": service.about,
        },
        "servers": [{"url": "/", "description": "This service"}],
        "tags": [{"name": tag.name, "description": tag.about} for tag in service.tags],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {name: each for name, each in responses().items() if name in used},
            "headers": _HEADERS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `Authorization: Bearer sk-sluice-…`. Made by "
                    "`python -m streaming keys`.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": service.session_cookie,
                    "description": "The session of the page, after a sign-in there.",
                },
            },
        },
    }


_HEADERS: JSON = {
    "RequestId": {
        "description": "This request's id, for the logs. A harmless `X-Request-Id` of the caller is kept.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before asking again.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def _shapes(operations: Iterable[Operation]) -> Iterator[Shape]:
    for each in operations:
        if each.body:
            yield each.body.shape
        for answer in each.answers.values():
            for shape in answer.content.values():
                yield shape.shape if isinstance(shape, Events) else shape


def _operation(operation: Operation, schemas: Schemas, service: Service) -> JSON:
    told: JSON = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.about:
        told["description"] = operation.about
    if operation.parameters:
        told["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body:
        told["requestBody"] = _body(operation.body, schemas)
    told["responses"] = {
        **{str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
        **{
            str(status): {"$ref": f"#/components/responses/{name_of(status, operation.dialect)}"}
            for status in _errors(operation)
        },
    }
    told["security"] = _security(operation, service)
    return told


def _errors(operation: Operation) -> list[int]:
    may_be_long = any(each.where != "header" for each in operation.parameters)
    found = {*operation.errors, 405, *BY_ACCESS[operation.access]}
    found |= {414} if may_be_long else set()
    found |= {431} if any(each.where == "header" for each in operation.parameters) else set()
    found |= {408} if operation.body else set()
    return sorted(found - operation.answers.keys())


def _security(operation: Operation, service: Service) -> list[JSON]:
    """Say who may: the scope stands where OpenAPI has room for a role's name."""
    if operation.access == "public":
        return []
    scopes = [operation.access]
    return [*([{}] if service.is_open else []), {"key": scopes}, {"session": scopes}]


def _parameter(parameter: Parameter) -> JSON:
    schema = parameter.schema
    told: JSON = {"name": parameter.name, "in": parameter.where, "description": parameter.about}
    if parameter.required or parameter.where == "path":
        told["required"] = True
    if parameter.repeated:
        told |= {"style": "form", "explode": True}
        schema = {"type": "array", "items": schema, "minItems": 1}
    return {**told, "schema": schema}


def _body(body: Body, schemas: Schemas) -> JSON:
    content: JSON = {"schema": schemas.of(body.shape)}
    if body.examples:
        content["examples"] = {
            _key(name): {"summary": name, "value": value} for name, value in body.examples.items()
        }
    return {"required": body.required, "content": {body.media_type: content}}


def _answer(answer: Answer, schemas: Schemas) -> JSON:
    headers: JSON = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    for name, about in answer.headers.items():
        headers[name] = {"description": about, "schema": {"type": "string"}}
    told: JSON = {"description": answer.about, "headers": headers}
    if answer.content:
        told["content"] = {
            media_type: _content(shape, schemas) for media_type, shape in answer.content.items()
        }
    return told


def _content(shape: Shape | Events, schemas: Schemas) -> JSON:
    if not isinstance(shape, Events):
        return {"schema": schemas.of(shape)}
    # The stream as a whole is text; each event's ``data`` is JSON of this shape.
    told: JSON = {"schema": {"type": "string"}, "x-itemSchema": _item(schemas.of(shape.shape))}
    return told | ({"example": shape.example} if shape.example else {})


def _item(schema: JSON) -> JSON:
    """Return the schema of one event, in the form OpenAPI 3.2 has for it.

    Source: OpenAPI Specification 3.2.0, "Server-Sent Event Streams".
    """
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "data": data,
            "retry": {"type": "integer", "minimum": 0},
        },
    }


def _key(name: str) -> str:
    """Return a name's words as one.

    >>> _key("A question, in words")
    'aQuestionInWords'
    """
    words = re.findall(r"[A-Za-z0-9]+", name)
    return "".join(word.capitalize() if place else word.lower() for place, word in enumerate(words))
