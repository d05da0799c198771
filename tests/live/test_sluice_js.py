"""``static/sluice.js`` in Node: what it promises against a failing double, and against the real service."""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import StartService
from tests.live.middlebox import Middlebox, Passage
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.test_v1_node import CLIENTS, node  # noqa: F401
from tests.live.upstream import Script, contents
from tests.live.v1 import new_token

NODE_SECONDS = 60.0

Use = Callable[..., dict[str, Any]]


@pytest.fixture
def use(node: str) -> Use:  # noqa: F811
    """Run the client on an address: ``use(url, "start" or "follow", …)`` returns what it was told."""

    def use_(url: str, how: str, **asked: Any) -> dict[str, Any]:
        done = _node(node, "sluice.mjs", json.dumps({"base_url": url, "how": how, **asked}))
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        assert "thrown" not in printed, printed["thrown"]
        return printed

    return use_


@pytest.fixture
def middlebox(service: Service) -> Iterator[Middlebox]:
    box = Middlebox(service.port)
    yield box
    box.stop()


def _node(node: str, *arguments: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    return subprocess.run(
        [node, *arguments], cwd=CLIENTS, capture_output=True, text=True, timeout=NODE_SECONDS
    )


def prompt(**script: Any) -> str:
    return f"<<{json.dumps(script)}>>"


def text_of(told: dict[str, Any]) -> str:
    return "".join(event["content"] for event in told["events"] if event["type"] == "token")


def assert_whole(told: dict[str, Any], service: Service, script: Script) -> None:
    """Check that all of the upstream's text came, once, and that the client knows it."""
    assert text_of(told) == told["result"]["text"] == "".join(contents(script))
    assert told["result"]["verified"] is True
    assert told["result"]["finish_reason"] == "stop"
    assert told["events"][-1]["done"] is True
    assert told["resets"] == 0
    assert service.snapshot(told["id"])["cursor"] == told["cursor"]


@pytest.mark.parametrize("without", [[], ["webcrypto", "customevent"]], ids=["as it is", "as Node 18"])
def test_what_the_client_promises_holds_against_a_service_that_fails(
    node: str,  # noqa: F811
    without: list[str],
) -> None:
    options = [f"--no-experimental-global-{name}" for name in without]
    done = _node(node, *options, "sluice_promises.mjs")

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert "# pass 6" in done.stdout, "fewer promises than there were"


def test_the_file_is_one_and_has_no_dependencies() -> None:
    text = (Path(CLIENTS).parents[1] / "static" / "sluice.js").read_text()

    assert not [line for line in text.splitlines() if line.startswith("import ") or "require(" in line]


def test_a_run_is_started_and_heard_as_it_is(service: Service, use: Use) -> None:
    script = {"tokens": 30, "pace_ms": 5}

    told = use(service.url, "start", request={"prompt": prompt(**script)})

    assert_whole(told, service, script)
    with service.follow(told["id"]) as reader:
        assert told["events"] == [event.json() for event in reader]
    assert told["links"] == ["open"]


def test_a_run_is_gone_on_with_from_each_of_its_events(service: Service, use: Use) -> None:
    script = {"tokens": 5}
    whole = use(service.url, "start", request={"prompt": prompt(**script)})
    with service.follow(whole["id"]) as reader:
        ids = [event.id for event in reader]
    events = whole["events"]

    for place in range(1, len(ids)):
        text = "".join(event.get("content", "") for event in events[:place])
        told = use(service.url, "follow", stream_id=whole["id"], after=ids[place - 1], text=text)
        last = {name: value for name, value in told["events"][-1].items() if value is not None}
        assert [*told["events"][:-1], last] == events[place:]
        assert told["result"]["text"] == whole["result"]["text"]
        assert told["result"]["verified"] is True


@pytest.mark.parametrize("events", [1, 2, 7])
def test_connections_that_are_cut_cost_nothing(
    service: Service, middlebox: Middlebox, use: Use, upstream: Upstream, events: int
) -> None:
    script = {"tokens": 24, "pace_ms": 250, "token": new_token()}
    middlebox.passages = [Passage(events=events)]

    told = use(middlebox.url, "start", request={"prompt": prompt(**script)})

    assert_whole(told, service, script)
    assert len(middlebox.asked) >= 3
    assert "reconnecting" in told["links"]
    assert len(upstream.log(script["token"])) == 1


def test_a_network_that_holds_streams_back_is_polled(
    service: Service, middlebox: Middlebox, use: Use
) -> None:
    script = {"tokens": 150, "pace_ms": 60}
    middlebox.passages = [Passage(held=True)]

    told = use(middlebox.url, "start", request={"prompt": prompt(**script)})

    assert_whole(told, service, script)
    assert told["links"] == ["polling"]
    assert len([event for event in told["events"] if event["type"] == "token"]) > 2, "it came in one piece"


@pytest.mark.parametrize(
    "change",
    [lambda block: block.replace(b"data: {", b"data: <"), lambda block: b"", lambda block: block[::-1]],
    ids=["not JSON", "nothing", "nonsense"],
)
def test_what_comes_through_as_garbage_is_told_from_what_is_kept(
    service: Service, middlebox: Middlebox, use: Use, change: Callable[[bytes], bytes]
) -> None:
    script = {"tokens": 20, "pace_ms": 20}
    middlebox.passages = [Passage(change=change)]

    told = use(middlebox.url, "start", request={"prompt": prompt(**script)})

    assert_whole(told, service, script)


def test_text_that_was_changed_on_its_way_is_noticed_and_read_again(
    service: Service, middlebox: Middlebox, use: Use
) -> None:
    script = {"tokens": 20, "pace_ms": 10}
    middlebox.passages = [Passage(change=lambda block: block.replace(b"w7 ", b"w1 ")), Passage()]

    told = use(middlebox.url, "start", request={"prompt": prompt(**script)})

    assert text_of(told) == "".join(contents(script))
    assert (told["resets"], told["result"]["verified"]) == (1, True)


def test_a_cancel_keeps_the_text_and_closes_the_upstream(
    service: Service, use: Use, upstream: Upstream
) -> None:
    token = new_token()

    told = use(
        service.url,
        "start",
        request={"prompt": prompt(tokens=1000, pace_ms=20, token=token)},
        cancel_after=10,
    )

    upstream.wait_for_close(token)
    assert told["receipt"]["state"] == "cancelled"
    assert told["receipt"]["upstream"] == "closed"
    assert told["result"]["finish_reason"] == "cancelled"
    assert told["result"]["verified"] is True
    assert told["result"]["text"] == service.snapshot(told["id"])["text"]


def test_a_client_that_leaves_is_noticed_as_one(service: Service, use: Use, upstream: Upstream) -> None:
    token = new_token()
    request = {"prompt": prompt(tokens=1000, pace_ms=20, token=token), "on_disconnect": "cancel"}

    told = use(service.url, "start", request=request, leave_after=8)

    upstream.wait_for_close(token)
    assert told["result"]["error"]["type"] == "closed"


def test_a_worker_that_is_killed_is_an_error_with_the_text_so_far(
    start_service: StartService, use: Use
) -> None:
    service = start_service()
    stream_id = service.create(prompt(tokens=1000, pace_ms=20))
    told: dict[str, Any] = {}
    listening = threading.Thread(target=lambda: told.update(use(service.url, "follow", stream_id=stream_id)))
    listening.start()
    wait_until(
        lambda: len(service.snapshot(stream_id)["text"]) > 50, PATIENCE_SECONDS, "the answer has begun"
    )

    service.kill_worker()
    listening.join(60)

    assert told["result"]["error"]["type"] == "interrupted"
    assert told["result"]["verified"] is True
    assert told["result"]["text"] == text_of(told) == service.snapshot(stream_id)["text"] != ""


@pytest.mark.parametrize(
    ("stream_id", "type_"), [("st_nothing", "not_found"), (f"st_{'a' * 34}", "stream_lost")]
)
def test_a_stream_that_is_not_there_ends_at_once(
    service: Service, use: Use, stream_id: str, type_: str
) -> None:
    told = use(service.url, "follow", stream_id=stream_id)

    assert told["result"]["error"]["type"] == type_
    assert told["events"] == [{"type": "error", "done": True, "error": told["result"]["error"]}]


# The document


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "javascript.md"


def snippets(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo model: what the document asks needs an answer in words."""
    keyless = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}
    service = Service(tmp_path_factory.mktemp("demo"), "", environment=keyless)
    yield service
    service.stop()


@pytest.mark.parametrize("place", range(6))
def test_each_snippet_of_the_document_runs_as_it_says(
    demo: Service,
    node: str,  # noqa: F811
    tmp_path: Path,
    place: int,
) -> None:
    code = snippets("js")[place]
    assert "https://sluice.example" in code
    client = (CLIENTS.parents[1] / "static" / "sluice.js").as_uri()
    program = tmp_path / "snippet.mjs"
    program.write_text(code.replace("https://sluice.example", demo.url).replace("./sluice.js", client))

    done = _node(node, str(program))

    assert done.returncode == 0, done.stderr
    said = re.findall(r"console\.log\(.*\); // (.*)", code)
    if said:
        assert done.stdout.splitlines() == said
    elif "process.stdout" in code:
        assert len(done.stdout) > 50


def test_the_document_has_no_other_snippets() -> None:
    assert len(snippets("js")) == 6
