"""``docs/clients.md`` and ``examples/clients``: what a reader pastes does what it says.

Every snippet of the document is run; one that is not known here fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.cable import Cable
from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, REPOSITORY, Service, Upstream, wait_until
from tests.live.terminal import Program

SNIPPET = re.compile(r"^```(\w+) ([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = REPOSITORY / "examples" / "clients"
NODE_MODULES = REPOSITORY / "tests" / "clients_node" / "node_modules"
SNIPPET_SECONDS = 60
DEMO = {
    "OPENAI_API_KEY": None,
    "OPENAI_BASE_URL": None,
    "MODEL": None,
    "DEMO_TOKENS_PER_SECOND": "300",
    "RUNNABLES": "tools=examples.tool_loop:assistant,approval=examples.approval:graph",
}
DONE = r'"type":"done","finish_reason":"stop"'
PRINTS = {
    "terminal": "# How your answer got here",
    "terminal-service": "> What is a cursor",
    "terminal-json": r'"type":"token","content":"pong".*\n(.*\n)*.*"type":"done".*"cursor":"1\.\d+"}\n$',
    "chat": r'data: {"content":"Hello","done":false}\n(.*\n)*data: {"done":true,"finish_reason":"stop"',
    "follow": rf"^retry: \d+\nid: 1\.1\n(.*\n)*.*{DONE}",
    "resume": rf'^retry: \d+\nid: 1\.[3-9]\ndata: {{"type":"(status|token)"(.*\n)*.*{DONE}',
    "idempotent": r'^{"stream_id":"(st_\w+)","state":"\w+",.*\n{"stream_id":"\1"',
    "poll": r'^(?=(.*\n)*.*"text":"Hello)(.*\n)*.*"state":"completed",.*"finish_reason":"stop"',
    "stop": r'{"stream_id":"st_\w+","state":"cancelled","cursor":"1\.\d+","upstream":"closed"}',
    "length": r'"type":"done","finish_reason":"length"',
    "vision": r"data:  received(.*\n)*data:  image(.*\n)*data: \[DONE\]",
    "tools": r'"tool":"get_weather","args":{"city":(.*\n)*.*"type":"done","finish_reason":"tool_calls"',
    "tools-here": rf'"type":"tool_call"(.*\n)*.*"type":"tool_result"(.*\n)*.*{DONE}',
    "turns": r'Hello(.*\n)*.*(.*\n)*{.*"turns":\[.*"prompt":"hi".*"prompt":"And what is a cursor\?"',
    "graph": rf'"type":"state"(.*\n)*.*"type":"interrupt"(.*\n)*.*"node":"send"(.*\n)*.*{DONE}',
    "usage": rf'"type":"metrics"(.*\n)*.*{DONE}.*"completion_tokens":\d+',
    "curl": rf'"content":"pong"(.*\n)*.*{DONE}',
    "httpx": "^pong\nstop\n$",
    "python-requests": "^pong$",
    "node": "^pong\nstop\n$",
    "node-program": "^pong$",
}
COMPONENTS = ("react", "vue")
SNIPPETS = {
    name: (language, text)
    for language, name, text in SNIPPET.findall((REPOSITORY / "docs" / "clients.md").read_text())
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers as ``make run`` starts them, with the runnables the recipes name."""
    directory = tmp_path_factory.mktemp("demo")
    checkpoints = {"CHECKPOINTS_URL": f"sqlite:///{directory / 'checkpoints.db'}"}
    service = Service(directory, "", workers=2, environment=DEMO | checkpoints)
    yield service
    service.stop()


def environment(url: str) -> dict[str, str]:
    """Return what a program needs here; no setting of this machine is among it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    paths = os.pathsep.join([str(REPOSITORY), str(EXAMPLES)])
    return {
        "PATH": path,
        "PYTHONPATH": paths,
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "SLUICE_URL": url,
        "RUNNABLES": "none",
        "DEMO_TOKENS_PER_SECOND": "0",
    }


PROGRAMS: dict[str, list[str]] = {
    "sh": ["bash", "-eu", "-c"],
    "python": [sys.executable, "-c"],
    "js": ["node", "--input-type=module", "-e"],
}


def test_the_document_has_the_snippets_that_are_run() -> None:
    assert SNIPPETS.keys() == {*PRINTS, *COMPONENTS}
    fences = (REPOSITORY / "docs" / "clients.md").read_text().count("\n```")
    assert fences == 2 * len(SNIPPETS), "a block of code without a name"


@pytest.mark.parametrize("name", PRINTS)
def test_a_recipe_prints_what_it_promises(demo: Service, name: str) -> None:
    language, text = SNIPPETS[name]
    done = subprocess.run(
        [*PROGRAMS[language], text.replace("http://localhost:8000", demo.url)],
        cwd=REPOSITORY,
        env=environment(demo.url),
        capture_output=True,
        text=True,
        timeout=SNIPPET_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done
    assert re.search(PRINTS[name], done.stdout), done.stdout[-3000:]


# Components


Use = Callable[..., dict[str, str]]


@pytest.fixture(params=COMPONENTS)
def component(request: pytest.FixtureRequest, tmp_path: Path) -> Use:
    """Do steps in the document's component, in jsdom: ``use(url, *steps)`` returns what it says then."""
    kind: str = request.param
    assert NODE_MODULES.is_dir(), "the packages are not installed; run: make node-clients"
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    shutil.copy(REPOSITORY / "static" / "sluice.js", tmp_path)
    shutil.copy(EXAMPLES / kind / "useSluice.js", tmp_path)

    def use(
        url: str, *steps: dict[str, Any], meanwhile: Callable[[str], object] | None = None
    ) -> dict[str, str]:
        (tmp_path / "Chat.js").write_text(SNIPPETS[kind][1].replace("http://localhost:8000", url))
        asked = {"kind": kind, "module": str(tmp_path / "Chat.js"), "steps": steps}
        with subprocess.Popen(
            ["node", "component.mjs", json.dumps(asked)],
            cwd=REPOSITORY / "tests" / "clients_node",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                said = ""
                if meanwhile:
                    assert process.stderr
                    meanwhile(said := process.stderr.readline())
                out, err = process.communicate(timeout=SNIPPET_SECONDS)
            finally:
                process.kill()
        assert process.returncode == 0, said + err
        printed: dict[str, str] = json.loads(out)
        return printed

    return use


def script(**keys: object) -> str:
    return f"play <<{json.dumps(keys)}>>"


def words(count: int) -> str:
    return "".join(f"w{i} " for i in range(count))


def test_a_component_shows_the_answer(service: Service, component: Use) -> None:
    said = component(service.url, {"ask": script(tokens=30, pace_ms=5)}, {"see": ["p", "done"]})
    assert said == {"answer": words(30), "status": "done"}


def test_a_component_asks_again_and_shows_the_newest_answer_only(service: Service, component: Use) -> None:
    said = component(
        service.url,
        {"ask": script(tokens=500, pace_ms=20)},
        {"see": ["p", "w3 "]},
        {"ask": script(tokens=5)},
        {"see": ["p", "done"]},
    )
    assert said == {"answer": words(5), "status": "done"}


def test_a_component_stops_its_run(service: Service, upstream: Upstream, component: Use) -> None:
    asked = script(tokens=2000, pace_ms=20, token="component-stop")
    said = component(
        service.url, {"ask": asked}, {"see": ["p", "w3 "]}, {"click": "Stop"}, {"see": ["p", "stopped"]}
    )
    assert said["status"] == "stopped"
    assert words(2000).startswith(said["answer"])
    upstream.wait_for_close(upstream.log("component-stop")[0]["token"])


def test_a_component_goes_on_where_the_network_was_cut(service: Service, component: Use) -> None:
    cable = Cable(service.port)

    def cut(_said: str) -> None:
        cable.cut()
        cable.mend()

    steps = [
        {"ask": script(tokens=100, pace_ms=20)},
        {"see": ["p", "w20 "]},
        {"say": "now"},
        {"see": ["p", "done"]},
    ]
    try:
        said = component(cable.url, *steps, meanwhile=cut)
    finally:
        cable.remove()
    assert said == {"answer": words(100), "status": "done"}


def test_a_component_tells_a_failure_and_a_refusal(service: Service, component: Use) -> None:
    failed = component(
        service.url, {"ask": script(play="cut", after=3)}, {"see": ["p", "w2 "]}, {"see": ["p", "model"]}
    )
    assert failed["answer"] == words(3)
    refused = component(service.url, {"ask": " "}, {"see": ["p", "prompt: it is empty"]})
    assert refused == {"answer": "", "status": "prompt: it is empty"}


def test_a_component_that_is_taken_away_leaves_the_run(
    service: Service, upstream: Upstream, component: Use
) -> None:
    asked = script(tokens=100, pace_ms=20, token="component-gone")
    assert component(service.url, {"ask": asked}, {"see": ["p", "w3 "]}, {"unmount": True}) == {}
    # It was left, not stopped: others may read it.
    wait_until(
        lambda: upstream.log("component-gone")[0]["finished"], PATIENCE_SECONDS, "the upstream has finished"
    )


# Programs


PROGRAM_OF: dict[str, list[str]] = {
    "httpx": [sys.executable, str(EXAMPLES / "python_httpx.py")],
    "requests": [sys.executable, str(EXAMPLES / "python_requests.py")],
    "node": ["node", str(EXAMPLES / "node.mjs")],
    "curl": ["bash", str(EXAMPLES / "curl.sh")],
}
Start = Callable[..., Program]


@pytest.fixture(params=PROGRAM_OF)
def program(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start one of the programs: ``program(url, prompt)``."""
    started: list[Program] = []

    def start(url: str, prompt: str) -> Program:
        asked = json.dumps({"prompt": prompt}) if request.param == "curl" else prompt
        command = PROGRAM_OF[request.param]
        started.append(Program([asked], environment=environment(url), command=command))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def text_of(printed: str) -> str:
    """Return the text in what a program printed, which is the text itself or events."""
    if not printed.startswith("{"):
        return printed
    events = map(json.loads, printed.splitlines())
    return "".join(event["content"] for event in events if event["type"] == "token")


def test_a_program_prints_the_answer(service: Service, program: Start) -> None:
    printed = program(service.url, script(tokens=30)).wait()
    assert (printed.status, text_of(printed.out), printed.err) == (0, words(30), "")


def test_a_program_goes_on_where_the_network_was_cut(service: Service, program: Start) -> None:
    cable = Cable(service.port)
    try:
        process = program(cable.url, script(tokens=150, pace_ms=20))
        came = ""
        for place in ("w10 ", "w60 ", "w110 "):
            came += process.read_until(place)
            cable.cut()
            cable.mend()
        printed = process.wait()
    finally:
        cable.remove()
    assert (printed.status, text_of(came + printed.out)) == (0, words(150))


def test_a_program_stops_the_run_at_ctrl_c(
    service: Service, upstream: Upstream, program: Start, request: pytest.FixtureRequest
) -> None:
    token = request.node.name
    process = program(service.url, script(tokens=2000, pace_ms=20, token=token))
    process.read_until("w5 ")
    process.interrupt()
    assert process.wait().status == 130
    upstream.wait_for_close(token)


def test_a_program_never_takes_a_killed_worker_for_the_end(
    start_service: StartService, program: Start
) -> None:
    service = start_service(workers=2)
    process = program(service.url, script(tokens=2000, pace_ms=20))
    came = process.read_until("w20 ")
    service.kill_worker()
    printed = process.wait()
    assert printed.status == 1
    assert words(2000).startswith(text_of(came + printed.out).rstrip("\n"))


def test_a_program_tells_a_refusal(service: Service, program: Start) -> None:
    printed = program(service.url, " ").wait()
    assert printed.status == 1
    assert "prompt: it is empty" in printed.err


def test_the_parser_of_requests_takes_any_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from python_requests import messages

    body = (
        'retry: 1\nid: 1.1\ndata: {"a": "é\u2028"}\n\n: hb\nid: 1.2\ndata: x\ndata: y\n\ndata: half'.encode()
    )
    whole = [("1.1", '{"a": "é\u2028"}'), ("1.2", "x\ny")]
    for cut in range(len(body) + 1):
        assert list(messages([body[:cut], body[cut:]])) == whole
    assert list(messages(body[at : at + 1] for at in range(len(body)))) == whole
