"""Ask a service whatever its description allows, and what it does not, and hold the answers against it.

``python -m tests.fuzz_api --cases 1000`` starts a service with the demo model and the examples, tries so many
requests for each operation, and prints a line for each; the whole result goes to ``--output`` as JSON.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from tests.live.service import EventParser, Service

JSON = dict[str, Any]

READ_SECONDS = 20.0
MOST_KEPT = 50
SHOWN_CHARS = 400
# How a request that breaks the description may be answered. Also where what it breaks was never looked at.
REFUSALS = ("400", "401", "403", "404", "405", "409", "410", "413", "414", "415", "422", "426", "429", "5xx")
WORDS = ("a log", "How do I resume?", "\u2028 \U0001f30a \0", "<b>&amp;</b>", "data: x\n\nid: 1", "x" * 5000)
CHATKIT = (
    "threads.create threads.list threads.get_by_id threads.add_user_message items.list threads.update"
    " threads.delete threads.retry_after_item threads.add_client_tool_output"
).split()
UNUSED = (
    # 5xx are counted here, each by its own status: a 501 or 502 that is described is an answer, a 500 never.
    "not_a_server_error",
    # What goes together, which models there are, and whose a thread is, no schema says.
    "positive_data_acceptance",
    # These need a history of calls.
    "use_after_free",
    "ensure_resource_availability",
    # Without keys everything may be asked by anybody; the matrix of routes and principals is tried elsewhere.
    "ignored_auth",
    "object_level_authorization",
    "max_response_time",
)


Ask = Callable[[Any, GenerationMode], None]


class Finding(NamedTuple):
    what: str
    status: int
    example: str
    """How to ask again, and what was wrong."""


class Tried(NamedTuple):
    """What came of one operation."""

    operation: str
    cases: int
    seconds: float
    statuses: dict[int, int]
    findings: list[Finding]
    events: int
    """Of event streams, each held against its schema."""

    @property
    def server_errors(self) -> int:
        return self.statuses.get(500, 0)


@contextmanager
def demo_service(directory: Path) -> Iterator[Service]:
    """Run a service that answers at once, keeps nothing elsewhere and lets nobody wait for long."""
    service = Service(
        directory,
        "",
        environment={
            "OPENAI_API_KEY": None,
            "OPENAI_BASE_URL": None,
            "MODEL": None,
            "RUNNABLES": None,
            "CHECKPOINTS_URL": f"sqlite:///{directory / 'checkpoints.db'}",
            "SESSIONS_PATH": str(directory / "sessions.db"),
            "DEMO_TOKENS_PER_SECOND": "0",
            "MAX_WAIT_SECONDS": "0.1",
            "STREAM_TIMEOUT_SECONDS": "10",
            "DISCONNECT_GRACE_SECONDS": "1",
        },
    )
    try:
        yield service
    finally:
        service.stop()


class Fuzzer:
    """Tries the operations of one service."""

    def __init__(self, url: str, cases: int, start: int = 0) -> None:
        self._url = url
        self._cases = cases
        self._start = start
        self._random = random.Random(start)
        self._session = requests.Session()
        self.described: JSON = self._session.get(f"{url}/openapi.json", timeout=READ_SECONDS).json()
        config = schemathesis.Config.from_dict(
            {
                "max-stream-events": 10_000,
                "checks": {"negative_data_rejection": {"expected-statuses": [*REFUSALS]}},
            }
        )
        self._schema = schemathesis.openapi.from_dict(_without_streams(self.described), config=config)
        load_all_checks()
        self._checks = [check for check in CHECKS.get_all() if check.__name__ not in UNUSED]
        self._known: dict[str, deque[str]] = {
            name: deque(maxlen=MOST_KEPT)
            for name in ("stream_id", "thread_id", "id", "item_id", "chatkit_thread")
        }
        self._runnables = [each["name"] for each in self._session.get(f"{url}/runnables").json()["runnables"]]

    @property
    def operations(self) -> list[Any]:
        return [found.ok() for found in self._schema.get_all_operations()]

    def try_operation(self, operation: Any, cases: int = 0) -> Tried:
        """Send half of the cases as described, half as not, and return what came."""
        statuses: Counter[int] = Counter()
        findings: dict[tuple[str, int], Finding] = {}
        began = time.monotonic()
        events = 0
        asked = cases or self._cases
        counts = {
            GenerationMode.POSITIVE: asked - asked // 2,
            GenerationMode.NEGATIVE: asked // 2,
        }

        def ask(case: Any, mode: GenerationMode) -> None:
            nonlocal events
            self._ground(case, mode is GenerationMode.POSITIVE)
            response = case.call(base_url=self._url, session=self._session, timeout=READ_SECONDS)
            statuses[response.status_code] += 1
            self._learn(response)
            found = [*self._faults(case, response)]
            events += self._count_events(case, response, found)
            for what, why in found:
                example = f"{case.as_curl_command()}\n{why}"[: 3 * SHOWN_CHARS]
                findings.setdefault(
                    (what, response.status_code), Finding(what, response.status_code, example)
                )

        for mode, count in counts.items():
            if count and not self._run(operation, mode, count, ask):
                self._run(operation, GenerationMode.POSITIVE, count, ask)
        return Tried(
            operation.label,
            sum(statuses.values()),
            round(time.monotonic() - began, 1),
            dict(sorted(statuses.items())),
            list(findings.values()),
            events,
        )

    def _run(self, operation: Any, mode: GenerationMode, count: int, ask: Ask) -> bool:
        """Ask ``count`` times; return whether there is anything of that kind to ask."""
        asked = 0
        if mode is GenerationMode.NEGATIVE and _takes_anything(operation):
            return False

        def one(case: Any) -> None:
            nonlocal asked
            asked += 1
            ask(case, mode)

        try:
            strategy = operation.as_strategy(generation_mode=mode)
            while asked < count:  # Hypothesis ends early where it has tried all there is
                before = asked
                check = settings(
                    max_examples=count - asked,
                    phases=[Phase.generate],
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                )(given(strategy)(one))
                seed(self._start + asked)(check)()
                if asked == before:
                    return False
        except schemathesis.errors.InvalidSchema:
            return False
        except Exception as error:
            if type(error).__name__ in ("Unsatisfiable", "SkipTest", "Skipped"):
                return asked > 0
            raise
        return True

    def _ground(self, case: Any, as_described: bool) -> None:
        """Name what is there in half of the requests, or all would be refused at the door."""
        if self._random.random() < 0.5:
            return
        if case.method == "DELETE" or case.path.endswith("/cancel") or not self._known["thread_id"]:
            self._make()  # or nothing would be left to be erased
        for name, known in self._known.items():
            if known and name in (case.path_parameters or {}):
                case.path_parameters[name] = self._random.choice(known)
        if "name" in (case.path_parameters or {}) and case.operation.path.startswith("/runnables"):
            case.path_parameters["name"] = self._random.choice(self._runnables)
        if isinstance(case.body, dict) and as_described:
            self._ground_body(case.operation.path, case.body)
        query = case.query
        if isinstance(query, dict) and as_described:
            for name in ("model", "follows", "replaces"):
                query.pop(name, None)
            if isinstance(query.get("source"), str):
                query["source"] = self._random.choice(["chat", *self._runnables])

    def _make(self) -> None:
        """Have a run and a thread that are there."""
        for path, body in (("streams", {"prompt": "a log"}), ("threads", {"title": "a log"})):
            answer = self._session.post(f"{self._url}/{path}", json=body, timeout=READ_SECONDS).json()
            if path == "streams":
                self._keep(answer["stream_id"])
            else:
                self._known["thread_id"].append(answer["id"])

    def _keep(self, stream_id: str) -> None:
        self._known["stream_id"].append(stream_id)
        self._known["id"].append(f"resp_{stream_id.removeprefix('st_')}")

    def _ground_body(self, path: str, body: JSON) -> None:
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
        elif path == "/":
            body |= {"follows": "", "replaces": "", "prompt": word, "answerer": "model:demo"}
            body.pop("resume", None)
        elif path.startswith("/runnables"):
            messages = {"messages": [{"role": "user", "content": word}]}
            given = self._random.choice([word, {"topic": word}, messages])
            body |= {"inputs": [given]} if path.endswith("/batch") else {"input": given}

    def _pick(self, name: str) -> str:
        return self._random.choice(self._known[name] or ["th_none"])

    def _learn(self, response: Any) -> None:
        stream_id = (response.headers.get("stream-id") or [""])[0]
        if stream_id.startswith("st_"):
            self._keep(stream_id)
        if "/chatkit" in response.request.url and response.status_code == 200:
            self._known["item_id"] += re.findall(r'"id":"((?:msg|cthi|message)_[^"]+)"', response.text)
            self._known["chatkit_thread"] += re.findall(r'"thread":{"id":"([^"]+)"', response.text)
        location = (response.headers.get("location") or [""])[0]
        if location.startswith("/threads/"):
            self._known["thread_id"].append(location.removeprefix("/threads/"))

    def _faults(self, case: Any, response: Any) -> Iterator[tuple[str, str]]:
        if response.status_code == 500:
            yield "server error", response.text[:SHOWN_CHARS]
        try:
            case.validate_response(response, checks=self._checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                yield getattr(failure, "title", type(failure).__name__), str(failure)[:SHOWN_CHARS]

    def _count_events(self, case: Any, response: Any, found: list[tuple[str, str]]) -> int:
        """Hold each event of a stream against its schema, where no format was chosen."""
        told = case.operation.definition.raw["responses"].get(str(response.status_code), {})
        content = told.get("content", {}).get("text/event-stream", {})
        kind = (response.headers.get("content-type") or [""])[0]
        if "x-itemSchema" not in content or not kind.startswith("text/event-stream"):
            return 0
        if "format" in (case.query or {}):
            return 0
        schema = content["x-itemSchema"]["properties"]["data"]["contentSchema"]
        validator = jsonschema_rs.validator_for({**schema, "components": self.described["components"]})
        count = 0
        for event in EventParser().feed(response.content, 0.0):
            if event.data in (b"", b"[DONE]"):
                continue
            count += 1
            told = json.loads(event.data)
            if error := next(validator.iter_errors(told), None):
                found.append(("event violates schema", f"{error.message}: {event.data[:SHOWN_CHARS]!r}"))
                break
        return count


def _takes_anything(operation: Any) -> bool:
    """Say whether nothing breaks its description: a form of texts that may all be left out."""
    content = operation.definition.raw.get("requestBody", {}).get("content", {})
    forms = [each["schema"] for media_type, each in content.items() if "form" in media_type]
    return bool(forms) and not forms[0]["required"]


def _without_streams(described: JSON) -> JSON:
    """Return the description without the schemas of event streams, which are not those of one event."""
    copied: JSON = json.loads(json.dumps(described))
    for methods in copied["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                answer.get("content", {}).get("text/event-stream", {}).pop("schema", None)
    return copied


def report(tried: Tried) -> str:
    statuses = " ".join(f"{status}x{count}" for status, count in tried.statuses.items())
    return (
        f"{tried.operation:48} {tried.cases:5} in {tried.seconds:6.1f} s  {tried.events:6} events  {statuses}"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_api", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="for each operation (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations whose method and path match this")
    parser.add_argument("--url", default="", help="of a service that runs; left out: one is started")
    parser.add_argument("--output", type=Path, default=Path("tests/artefacts/fuzz_api.json"))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        if options.url:
            return _fuzz(options.url, options)
        with demo_service(Path(directory)) as service:
            code = _fuzz(service.url, options)
            broke = service.log_text().count("a request broke")
            print(f"{broke} times 'a request broke' in the log")
            if broke:
                print(service.log_text()[-4000:])
            return code or int(broke > 0)


def _fuzz(url: str, options: argparse.Namespace) -> int:
    fuzzer = Fuzzer(url, options.cases, options.seed)
    results: list[Tried] = []
    for operation in fuzzer.operations:
        if re.search(options.only, operation.label):
            results.append(fuzzer.try_operation(operation))
            print(report(results[-1]), flush=True)
            for finding in results[-1].findings:
                print(
                    f"    {finding.status} {finding.what}\n      {finding.example[:SHOWN_CHARS]}", flush=True
                )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    told = [each._asdict() | {"findings": [one._asdict() for one in each.findings]} for each in results]
    options.output.write_text(json.dumps(told, indent=1))
    findings = sum(len(each.findings) for each in results)
    print(
        f"{len(results)} operations, {sum(each.cases for each in results)} requests, "
        f"{sum(each.server_errors for each in results)} server errors, {findings} kinds of findings"
    )
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
