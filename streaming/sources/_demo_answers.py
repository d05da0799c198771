"""What the demo model says: the same request always gets the same answer."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import msgspec

from streaming.sources._demo_images import describe_image
from streaming.sources._demo_request import BadRequest, ChatRequest, Message, NamedChoice, Tool
from streaming.sources._demo_schema import Example


class Call(NamedTuple):
    """A tool call: the tool's name and its arguments as JSON text."""

    name: str
    arguments: str


class Answer(NamedTuple):
    """Text or tool calls, never both; prose is text for a person, not JSON."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    is_prose: bool = True


def answer(request: ChatRequest) -> Answer:
    """Decide what to say. Raises ``BadRequest`` for a schema or an image that cannot be read."""
    if tools := _tools_to_call(request):
        return Answer(calls=tuple(_call(tool, request) for tool in tools))
    if request.response_format and request.response_format.type != "text":
        return Answer(text=_json_text(request), is_prose=False)
    if request.messages[-1].role == "tool":
        return Answer(text=_about_results(request))
    if images := _asked(request).images:
        return Answer(text=_about_images(request, images))
    return Answer(text=_in_words(request.prompt))


# Tools


def _tools_to_call(request: ChatRequest) -> Sequence[Tool]:
    choice, tools = request.tool_choice, request.tools or []
    if isinstance(choice, NamedChoice):
        return [tool for tool in tools if tool.function.name == choice.function.name]
    if not tools or choice == "none":
        return []
    asked = request.messages[-1].role == "user"
    if choice == "required" and not asked:
        # An agent that must call a tool each turn would otherwise call the same one for ever.
        called = _names_called(request.messages)
        return [tool for tool in tools if tool.function.name not in called.values()][:1] or tools[-1:]
    if not asked:
        return []
    words = set(re.findall(r"\w+", request.prompt.lower()))
    likely = sorted(tools, key=lambda tool: -len(words & _name_words(tool.function.name)))
    several = words & {"both", "parallel"} and request.parallel_tool_calls is not False
    return likely[: 2 if several else 1]


def _name_words(name: str) -> set[str]:
    """Return the words a tool's name is made of.

    >>> sorted(_name_words("getWeather_today"))
    ['get', 'today', 'weather']
    """
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).lower().split())


def _call(tool: Tool, request: ChatRequest) -> Call:
    schema = {"type": "object", **(tool.function.parameters or {})}
    place = next(i for i, known in enumerate(request.tools or ()) if known is tool)
    return Call(tool.function.name, _example(schema, request, f"tools[{place}].function.parameters"))


def _names_called(messages: Sequence[Message]) -> dict[str, str]:
    """Return the tools called since the user last spoke: their names by call id."""
    since = takewhile(lambda message: message.role != "user", reversed(messages))
    return {call.id: call.function.name for message in since for call in message.tool_calls or ()}


def _about_results(request: ChatRequest) -> str:
    names = _names_called(request.messages)
    results = list(takewhile(lambda message: message.role == "tool", reversed(request.messages)))[::-1]
    lines = [
        f"- **{names.get(result.tool_call_id or '', 'tool')}** answered: {_shortened(result.text, 400)}"
        for result in results
    ]
    return (
        f"{_quote(request.prompt)}\n\nHere is what came back 🔧:\n\n"
        + "\n".join(lines)
        + f"\n\n{_DISCLAIMER}"
    )


# JSON


def _json_text(request: ChatRequest) -> str:
    shape = request.response_format
    if shape and shape.json_schema:
        schema = shape.json_schema.schema or {"type": "object"}
        return _example(schema, request, "response_format.json_schema.schema")
    reply = {"answer": "This is the demo model: no AI, no key.", "prompt": request.prompt, "demo": True}
    return msgspec.json.encode(reply).decode()


def _example(schema: dict[str, object], request: ChatRequest, param: str) -> str:
    try:
        return msgspec.json.encode(Example(schema, request.prompt).value()).decode()
    except ValueError as error:
        raise BadRequest(str(error), param=param) from error


# Images


def _asked(request: ChatRequest) -> Message:
    return next(
        (message for message in reversed(request.messages) if message.role == "user"), request.messages[-1]
    )


def _about_images(request: ChatRequest, images: Sequence[str]) -> str:
    try:
        lines = [f"- image {i}: {describe_image(url)}" for i, url in enumerate(images, start=1)]
    except ValueError as error:
        raise BadRequest(str(error), param="messages", code="invalid_image_url") from error
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    head = f"{_quote(request.prompt)}\n\n" if request.prompt else ""
    return f"{head}I received {count} 🖼️:\n\n" + "\n".join(lines) + f"\n\n{_DISCLAIMER}"


# Words


def _in_words(prompt: str) -> str:
    words = re.findall(r"\w+", prompt.lower())
    if words[:1] and words[0] in {"hi", "hello", "hey"} and len(words) <= 3:
        return _GREETING
    if words[:1] and words[0] in {"thanks", "thank", "merci", "danke"}:
        return _THANKS
    if words == ["ping"]:
        return "pong"
    if "long" in words:
        return f"{_quote(prompt)}\n\n{_EXPLANATION}\n" + "\n".join(_long_sections())
    return f"{_quote(prompt)}\n\n{_EXPLANATION}" if prompt.strip() else _EXPLANATION


def _quote(prompt: str) -> str:
    return f"> {_shortened(prompt, 120)}"


def _shortened(text: str, characters: int) -> str:
    """Return ``text`` on one line, cut to ``characters``.

    >>> _shortened("one two  three", 9)
    'one two…'
    """
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _long_sections() -> Iterator[str]:
    for title, text in _SECTIONS:
        yield f"\n## {title}\n\n{text}"
    yield "\n## One run, record by record\n"
    yield "| Cursor | Event | What a reader has seen by then |"
    yield "| --- | --- | --- |"
    yield "| `1.1` | `start` | nothing yet, and the id of the stream |"
    words = " ".join(text for _, text in _SECTIONS).split()[:110]
    for seq, word in enumerate(words, start=2):
        yield f"| `1.{seq}` | `token` | {seq - 1} tokens, the last of them “{word}” |"
    yield f"| `1.{len(words) + 2}` | `done` | everything, and the checksum of the text |"
    yield "\nThat was the long answer: stop it half-way, refresh the page, or follow it twice. 🏁"


_DISCLAIMER = "_This is the demo model: no AI, no key. It reads the request and answers by rule._"

_GREETING = """\
Hello! 👋 This is the demo model: no AI, no key, just a small program that streams like one. \
Ask me anything and I will explain this service; ask for a *long* answer to try the Stop button \
or a refresh in the middle. To talk to a real model, set `OPENAI_API_KEY` and restart."""

_THANKS = """\
You are welcome! 😊 The demo model (no AI, no key) is always here. \
Ask how streaming works, or set `OPENAI_API_KEY` to ask a real model."""

_EXPLANATION = """\
# How your answer got here 🌊

**This is the demo model: no AI, no key.** The text is fixed; the streaming is real.

What you ask becomes a *run*, written once to a durable log. Any number of readers follow it, \
from any cursor, so a refresh neither loses nor repeats a word: naïve or not, à la carte.

- `POST /streams` starts a run and answers with its id
- `GET /streams/<id>` follows it, from `Last-Event-ID` or `?after=`
- `POST /streams/<id>/cancel` stops it, the model included

| `?format=` | What you get |
| --- | --- |
| `native` | every event as JSON: tokens, tools, usage |
| `simple` | `content` and `done`, for a page of six lines |
| `text` | the text itself |
| `ndjson` | native events, one a line |

```sh
curl -N 'http://localhost:8000/stream?prompt=hello'
```

```python
import json, urllib.request

with urllib.request.urlopen("http://localhost:8000/stream?prompt=hello") as lines:
    for line in lines:
        if line.startswith(b"data: "):
            print(json.loads(line[6:]).get("content", ""), end="")
```

To use a real model set `OPENAI_API_KEY`, `MODEL`, and for another provider `OPENAI_BASE_URL`. ✨
"""

_SECTIONS = (
    (
        "The log comes first",
        "A token is stored before anybody sees it. The reader in front of you and the one that comes back "
        "tomorrow read the same records in the same order, so the path that is shown live is the path that "
        "is resumed. Nothing is shown that a restart could take back.",
    ),
    (
        "Cursors",
        "Each record has a place, written `1.17`: the seventeenth record of the first producer. A browser "
        "sends the last one it saw in `Last-Event-ID` when it reconnects, and a script passes `?after=1.17`. "
        "The answer goes on with the next record, without a hole and without a word twice.",
    ),
    (
        "Stopping",
        "`POST /streams/<id>/cancel` writes the last record first and then closes the connection to the "
        "model, so that nobody pays for words that nobody reads. The answer is a receipt: which state won, "
        "the last cursor, and whether the upstream is closed.",
    ),
    (
        "Polling",
        "Where a proxy will not let a stream through, ask for `Accept: application/json`: the snapshot has "
        "the state, the text so far and a cursor. With `?wait=20` the request waits for news up to twenty "
        "seconds, which feels almost like a stream.",
    ),
    (
        "Formats",
        "One run, many dialects: `native` for everything, `simple` for a small page, `text` for the shell, "
        "and `ndjson` for pipes. Two readers of one run may use two different formats at the same time.",
    ),
    (
        "Letters",
        "Streams are UTF-8, and a letter may take four bytes: žluťoučký kůň, Ærøskøbing, Ελληνικά, 日本語, "
        "עברית, 🧵. A character is never cut in two on the way, and a line break inside a token never tears "
        "the framing of the events around it.",
    ),
    (
        "Conversations",
        "Put a `thread` in the request and the answer is kept with the question. The next run in the same "
        "thread sees both, whichever worker it lands on, and `GET /threads` lists them.",
    ),
    (
        "Real models",
        "Set `OPENAI_API_KEY` for OpenAI, or `OPENAI_BASE_URL` for anything that speaks its protocol, on "
        "your own machine too, and `MODEL` to choose. Nothing else changes: the routes, the cursors and the "
        "formats are those you have just tried.",
    ),
)
