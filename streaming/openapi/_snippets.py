"""How to ask for an operation, to copy: with curl, in Python, in JavaScript."""

import json
import shlex
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from streaming.openapi import JSON

BASE = "http://localhost:8000"
"""Stands for where the service is."""
EVENT_STREAM = "text/event-stream"


class Snippet(NamedTuple):
    language: str
    text: str


class _Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    is_form: bool
    streams: bool


def snippets_of(method: str, path: str, operation: JSON) -> list[Snippet]:
    """Return the same request in three languages; of what is no request in words, none."""
    if "101" in operation["responses"]:
        return []
    asked = _asked(method, path, operation)
    return [
        Snippet("curl", _curl(asked)),
        Snippet("Python", _python(asked)),
        Snippet("JavaScript", _javascript(asked)),
    ]


def _asked(method: str, path: str, operation: JSON) -> _Asked:
    query: list[tuple[str, str]] = []
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        schema = schema.get("items", schema)
        example = str((schema.get("examples") or schema.get("enum") or ["…"])[0])
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", example)
        elif parameter["in"] == "query" and parameter.get("required"):
            query.append((parameter["name"], "How do I resume?" if example == "…" else example))
    if query:
        path += "?" + urlencode(query, safe="@…", quote_via=quote)
    ((media_type, content),) = operation.get("requestBody", {}).get("content", {"": {}}).items()
    examples = list(content.get("examples", {}).values())
    body = examples[0]["value"] if examples else _made_up(content.get("schema", {}))
    headers = {"Content-Type": media_type} if media_type and "form" not in media_type else {}
    answers = operation["responses"].get("200", {}).get("content", {})
    streams = EVENT_STREAM in answers and ("application/json" not in answers or _is_streamed(operation, body))
    if operation["operationId"] == "getStream":
        headers["Accept"] = EVENT_STREAM
    if operation["security"] and {} not in operation["security"]:
        headers["Authorization"] = "Bearer YOUR_KEY"
    return _Asked(method, path, headers, body if media_type else None, "form" in media_type, streams)


def _is_streamed(operation: JSON, body: Any) -> bool:
    if isinstance(body, dict) and body.get("stream"):
        return True
    return operation["operationId"] in ("ask", "chatkit", "getStream")


def _made_up(schema: JSON) -> JSON:
    return dict.fromkeys(schema.get("required", ()), "…")


def _curl(asked: _Asked) -> str:
    parts = ["curl", *(["-N"] if asked.streams else [])]
    if asked.method != "GET" and not (asked.method == "POST" and asked.body is not None):
        parts += ["-X", asked.method]
    lines = [" ".join([*parts, _quoted(BASE + asked.path)])]
    lines += [f"  -H {shlex.quote(f'{name}: {value}')}" for name, value in asked.headers.items()]
    if asked.body is not None and asked.is_form:
        lines += [f"  --data-urlencode {shlex.quote(f'{name}={said}')}" for name, said in asked.body.items()]
    elif asked.body is not None:
        lines.append(f"  -d {shlex.quote(json.dumps(asked.body, ensure_ascii=False, indent=1))}")
    return " \\\n".join(lines)


def _quoted(url: str) -> str:
    return f"'{url}'" if set(url) & set("?&…@") else url


def _python(asked: _Asked) -> str:
    given = [json.dumps(asked.method), json.dumps(BASE + asked.path, ensure_ascii=False)]
    headers = {name: value for name, value in asked.headers.items() if name != "Content-Type"}
    if headers:
        given.append(f"headers={_literal(headers)}")
    if asked.body is not None:
        given.append(f"{'data' if asked.is_form else 'json'}={_literal(asked.body)}")
    arguments = "".join(f"    {each},\n" for each in given)
    if asked.streams:
        return (
            f"import httpx\n\nwith httpx.stream(\n{arguments}    timeout=60,\n) as answer:\n"
            "    for line in answer.iter_lines():\n        print(line)"
        )
    return f"import httpx\n\nanswer = httpx.request(\n{arguments})\nprint(answer.status_code, answer.text)"


def _literal(value: Any) -> str:
    """Return a value as Python writes it, further lines indented as an argument's."""
    text = json.dumps(value, ensure_ascii=False, indent=4)
    for theirs, ours in (("true", "True"), ("false", "False"), ("null", "None")):
        text = text.replace(f": {theirs}", f": {ours}")
    return text.replace("\n", "\n    ")


def _javascript(asked: _Asked) -> str:
    options: list[str] = []
    if asked.method != "GET":
        options.append(f"method: {json.dumps(asked.method)}")
    if asked.headers:
        options.append(f"headers: {json.dumps(asked.headers)}")
    if asked.body is not None:
        body = json.dumps(asked.body, ensure_ascii=False, indent=2).replace("\n", "\n  ")
        options.append(f"body: {'new URLSearchParams' if asked.is_form else 'JSON.stringify'}({body})")
    given = "".join(f"  {each},\n" for each in options)
    url = json.dumps(BASE + asked.path, ensure_ascii=False)
    call = f"const answer = await fetch({url}{f', {{{chr(10)}{given}}}' if options else ''});"
    if asked.streams:
        return (
            f"{call}\nconst text = answer.body.pipeThrough(new TextDecoderStream());\n"
            "for await (const piece of text) console.log(piece);"
        )
    return f"{call}\nconsole.log(answer.status, await answer.text());"
