"""What there is at the service to be asked for, and requests that name it.

A request of which everything is invented is refused at the door, so half of them name what is there.
"""

import random
import re
from collections import deque
from pathlib import Path
from typing import Any

from tests.fuzz_api_callers import ASK_SECONDS, Caller

JSON = dict[str, Any]

MOST_KEPT = 50
STATIC = Path(__file__).parents[1] / "static"
WORDS = ("a log", "How do I resume?", "\u2028 \U0001f30a \0", "<b>&amp;</b>", "data: x\n\nid: 1", "x" * 5000)
CHATKIT = (
    "threads.create threads.list threads.get_by_id threads.add_user_message items.list threads.update"
    " threads.delete threads.retry_after_item threads.add_client_tool_output"
).split()
TICKING = {"count": (3, 200), "every_ms": (5, 5000), "silence_s": (0.02, 1e9)}
"""What is asked of the doctor's ticks at most, of what may be: a thousand cases would take a day."""
FORMS = ("/", "/stop", "/rename", "/delete", "/sign-in", "/sign-out")


class Things:
    """The ids of what was made at one service, and a chance to have them in a request."""

    def __init__(self, caller: Caller, start: int) -> None:
        self._caller = caller
        self._random = random.Random(start)
        self._known: dict[str, deque[str]] = {
            name: deque(maxlen=MOST_KEPT)
            for name in ("stream_id", "thread_id", "id", "item_id", "chatkit_thread")
        }
        self._runnables = [each["name"] for each in self._get("/runnables").json()["runnables"]]
        self._assets = re.findall(r'"/assets/([0-9a-f]+)/([^"]+)"', self._get("/docs").text)
        self._files = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()]

    def name_some(self, case: Any, as_described: bool) -> None:
        """Name what is there in half of the requests, or all would be refused at the door."""
        if case.operation.path == "/doctor/ticks":
            _shorten(case.query)
        if (
            as_described
            and self._caller.token
            and case.operation.path in FORMS
            and isinstance(case.body, dict)
        ):
            case.body["csrf"] = self._caller.token
        if self._random.random() < 0.5:
            return
        path, named = case.operation.path, case.path_parameters or {}
        takes = case.method == "DELETE" or path.endswith(("/cancel", "/stop", "/rename", "/delete"))
        if takes or not self._known["thread_id"]:
            self._make()  # or nothing would be left to be erased
        for name, known in self._known.items():
            if known and name in named:
                named[name] = self._random.choice(known)
        if "name" in named and path.startswith("/runnables"):
            named["name"] = self._random.choice(self._runnables)
        elif "name" in named and path.startswith("/v1/models"):
            named["name"] = self._random.choice(["demo", *self._runnables])
        if "asked" in named and self._assets:
            named["asked"], named["name"] = self._random.choice(self._assets)
        if "filename" in named:
            named["filename"] = self._random.choice(self._files)
        if not as_described:
            return
        if isinstance(case.body, dict):
            self._name_in_body(path, case.body)
            if path == "/sign-in":
                case.headers.update(self._caller.page_headers)
        if isinstance(case.query, dict):
            self._name_in_query(path, case.query)

    def accepted(self, operation: Any) -> dict[str, str]:
        """Return the header that asks for one of the types its answers may have."""
        return {"Accept": self._random.choice(["*/*", *_media_types(operation)])}

    def learn(self, response: Any) -> None:
        """Keep the ids of what an answer says was made."""
        stream_id = (response.headers.get("stream-id") or [""])[0]
        if stream_id.startswith("st_"):
            self._keep(stream_id)
        if "/chatkit" in response.request.url and response.status_code == 200:
            self._known["item_id"] += re.findall(r'"id":"((?:msg|cthi|message)_[^"]+)"', response.text)
            self._known["chatkit_thread"] += re.findall(r'"thread":{"id":"([^"]+)"', response.text)
        location = (response.headers.get("location") or [""])[0]
        if location.startswith("/threads/"):
            self._known["thread_id"].append(location.removeprefix("/threads/"))

    def _get(self, path: str) -> Any:
        return self._caller.making.get(f"{self._caller.url}{path}", timeout=ASK_SECONDS)

    def _post(self, path: str, body: JSON) -> JSON:
        answer = self._caller.making.post(f"{self._caller.url}{path}", json=body, timeout=ASK_SECONDS)
        answer.raise_for_status()
        made: JSON = answer.json()
        return made

    def _make(self) -> None:
        """Have a thread that is there, with a run in it."""
        thread_id = self._post("/threads", {"title": "a log"})["id"]
        self._known["thread_id"].append(thread_id)
        self._keep(self._post("/streams", {"prompt": "a log", "thread": thread_id})["stream_id"])

    def _keep(self, stream_id: str) -> None:
        self._known["stream_id"].append(stream_id)
        self._known["id"].append(f"resp_{stream_id.removeprefix('st_')}")

    def _pick(self, name: str) -> str:
        return self._random.choice(self._known[name] or ["th_none"])

    def _name_in_query(self, path: str, query: JSON) -> None:
        if path == "/":
            found = {"thread": "thread_id", "turn": "stream_id", "edit": "stream_id", "stream": "stream_id"}
            for name in query.keys() & found.keys():
                query[name] = self._pick(found[name])
            return
        for name in ("model", "follows", "replaces"):
            query.pop(name, None)
        if isinstance(query.get("source"), str):
            query["source"] = self._random.choice(["chat", *self._runnables])

    def _name_in_body(self, path: str, body: JSON) -> None:
        word = self._random.choice(WORDS)
        for name in ("model", "continues", "follows", "replaces", "previous_response_id", "conversation"):
            if isinstance(body.get(name), str):
                del body[name]
        if path == "/streams":
            if body.keys() & {"source", "input", "mode", "config"}:
                body["source"] = self._random.choice(self._runnables)
            given = [name for name in ("prompt", "messages", "input") if body.get(name) is not None]
            for name in given[1:]:
                del body[name]
            if not given:
                body["prompt"] = word
        elif path == "/v1/embeddings":
            body["model"] = "demo"
        elif path == "/v1/responses" and not body.get("input"):
            body["input"] = word
        elif path == "/chatkit":
            content = [{"type": "input_text", "text": word}]
            said = {"content": content, "attachments": [], "inference_options": {}}
            named = {"item_id": self._pick("item_id"), "thread_id": self._pick("chatkit_thread")}
            body["type"] = self._random.choice(CHATKIT)
            body["params"] = {"input": said, "title": word, **named}
        elif path.startswith("/runnables"):
            messages = {"messages": [{"role": "user", "content": word}]}
            given = self._random.choice([word, {"topic": word}, messages])
            body |= {"inputs": [given]} if path.endswith("/batch") else {"input": given}
        elif path in FORMS:
            self._fill_in(path, body, word)

    def _fill_in(self, path: str, form: JSON, word: str) -> None:
        """Fill a form of the page in as its page does."""
        if path == "/":
            form |= {"follows": "", "replaces": "", "prompt": word, "answerer": "model:demo"}
            form.pop("resume", None)
        elif path == "/sign-in":
            form["key"] = self._caller.key if self._caller.is_let_in else word
        elif path != "/sign-out":
            form["thread"] = self._pick("thread_id")
            if path == "/stop":
                form["stream"] = self._pick("stream_id")


def _media_types(operation: Any) -> list[str]:
    """Return what its answers may be, in an order that is always the same."""
    answers = operation.definition.raw["responses"].values()
    return sorted({kind for answer in answers for kind in answer.get("content", {})})


def _shorten(query: Any) -> None:
    """Make short what may be asked, and leave what may not be as it is."""
    if not isinstance(query, dict):
        return
    for name, (most, allowed) in TICKING.items():
        if name not in query and name != "silence_s":
            query[name] = most
        elif re.fullmatch(r"[0-9]+" if isinstance(most, int) else r"[0-9.]+", str(query.get(name))):
            try:
                query[name] = most if most < float(query[name]) <= allowed else query[name]
            except ValueError:
                continue
