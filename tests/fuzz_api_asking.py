"""Make requests of the description of a service, and hold its answers against the description."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from tests.fuzz_api_callers import Caller
from tests.fuzz_api_things import Things
from tests.live.service import EventParser

JSON = dict[str, Any]

READ_SECONDS = 20.0
SHOWN_CHARS = 400
# How a request that breaks the description may be answered. Also where what it breaks was never looked at.
REFUSALS = "400 401 403 404 405 409 410 413 414 415 422 426 429 431 5xx".split()
UNUSED = (
    # 5xx are counted here, each by its own status: a 501 or 502 that is described is an answer, a 500 never.
    "not_a_server_error",
    # What goes together, which models there are, and whose a thread is, no schema says.
    "positive_data_acceptance",
    # These need a history of calls.
    "use_after_free",
    "ensure_resource_availability",
    # It asks everything a second time. `Caller` says who asks, and nobody must be let in.
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

    @property
    def described_failures(self) -> int:
        """Such as 501, where a setting is missing. One that is not described is a finding."""
        return sum(count for status, count in self.statuses.items() if status > 500)


class Fuzzer:
    """Tries the operations of one service."""

    def __init__(self, caller: Caller, cases: int, start: int = 0) -> None:
        self._caller = caller
        self._cases = cases
        self._start = start
        answer = caller.making.get(f"{caller.url}/openapi.json", timeout=READ_SECONDS)
        self.described: JSON = answer.json()
        config = schemathesis.Config.from_dict(
            {
                "max-stream-events": 10_000,
                # Keys that are made up are for who has none.
                "generation": {"with-security-parameters": not caller.is_let_in},
                "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}},
            }
        )
        self._schema = schemathesis.openapi.from_dict(_without_streams(self.described), config=config)
        load_all_checks()
        self._checks = [check for check in CHECKS.get_all() if check.__name__ not in UNUSED]
        self._things = Things(caller, start)

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
            self._things.name_some(case, mode is GenerationMode.POSITIVE)
            accepted = self._things.accepted(operation)
            status, found = 0, []
            try:
                response = case.call(
                    base_url=self._caller.url,
                    session=self._caller.asking,
                    headers=accepted,
                    timeout=READ_SECONDS,
                )
            except requests.RequestException as error:
                found.append(("no answer", f"{type(error).__name__}: {error}"))
            else:
                status = response.status_code
                self._things.learn(response)
                self._caller.renew(case.operation.path)
                found += self._faults(case, response)
                events += self._count_events(case, response, found)
            statuses[status] += 1
            for what, why in found:
                example = f"{case.as_curl_command(headers=accepted)}\n{why}"[: 3 * SHOWN_CHARS]
                findings.setdefault((what, status), Finding(what, status, example))

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

    def _faults(self, case: Any, response: Any) -> Iterator[tuple[str, str]]:
        if response.status_code == 500:
            yield "server error", response.text[:SHOWN_CHARS]
        needs_key = case.operation.definition.raw["security"]
        if needs_key and not self._caller.is_let_in and response.status_code < 400:
            yield "let in without a key", response.text[:SHOWN_CHARS]
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
