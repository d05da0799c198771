"""The snippets of docs/websocket.md, run as they stand there; browser/test_ws.py has the page's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.browser.conftest import Cable
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.upstream import contents
from tests.snippets import snippet

DOCUMENT = "docs/websocket.md"


def run(*program: str) -> str:
    """Run a program to its end; return what it printed."""
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asking(code: str, asked: str, prompt: str) -> str:
    """Return the snippet with another prompt, for an upstream that does what prompts say."""
    assert code.count(asked) == 1
    return code.replace(json.dumps(asked), json.dumps(prompt))


def test_two_turns_of_a_conversation(service: Service, upstream: Upstream, tmp_path: Path) -> None:
    code = snippet(DOCUMENT, "python turns", service.port)
    first = f"<<{json.dumps({'tokens': 3, 'token': 'docs-turns'})}>> first"
    second = f"<<{json.dumps({'tokens': 5, 'token': 'docs-turns'})}>> second"
    code = asking(asking(code, "Name three rivers.", first), "Which of them is the longest?", second)

    told = run(sys.executable, "-c", code)

    answers = ["".join(contents({"tokens": tokens})) for tokens in (3, 5)]
    assert told == f"{answers[0]}\n{answers[1]}\n"
    one, two = (each["body"]["messages"] for each in upstream.log("docs-turns"))
    assert [message["role"] for message in one] == ["user"]
    assert [message["content"] for message in two] == [first, answers[0], second]


def test_a_client_in_python_that_comes_back(
    service_two_workers: Service, upstream: Upstream, tmp_path: Path
) -> None:
    service = service_two_workers
    cable = Cable(service.port)
    script = {"tokens": 200, "pace_ms": 20, "gate": "docs-resume"}
    code = snippet(DOCUMENT, "python resume", cable.port)
    code = asking(code, "Count to a hundred.", "<<" + json.dumps(script) + ">>")
    out = tmp_path / "out"
    with (
        out.open("wb") as file,
        subprocess.Popen([sys.executable, "-c", code], stdout=file, stderr=subprocess.PIPE) as client,
    ):
        try:
            for tokens in (10, 60, 110):
                upstream.let("docs-resume", tokens + 50)
                wait_until(lambda n=tokens: out.read_bytes().count(b" ") > n, PATIENCE_SECONDS, "text comes")
                cable.cut()
                wait_until(lambda n=cable.refused: cable.refused > n, PATIENCE_SECONDS, "a try has failed")
                cable.mend()
            upstream.let("docs-resume")
            _out, problems = client.communicate(timeout=60)
        finally:
            client.kill()
            cable.remove()
    assert client.returncode == 0, problems
    assert out.read_text() == "".join(contents({"tokens": 200}))


def test_the_client_in_node_pauses_and_stops(service: Service, upstream: Upstream, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "Node is needed"
    version = int(run(node, "--version").lstrip("v").partition(".")[0])
    options = [] if version >= 22 else ["--experimental-websocket"]
    code = snippet(DOCUMENT, "js node", service.port)
    script = {"tokens": 5000, "pace_ms": 20, "token": "docs-node"}
    code = asking(code, "Tell me a long story.", f"<<{json.dumps(script)}>>")
    file = tmp_path / "client.mjs"
    file.write_text(code)

    done = subprocess.run([node, *options, str(file)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [frame["type"] for frame in frames] == ["paused", "resumed", "done"]
    assert frames[-1]["finish_reason"] == "cancelled"
    upstream.wait_for_close("docs-node")
    snapshot = service.snapshot(frames[-1]["stream_id"])
    assert snapshot["state"] == "cancelled"
    told = "".join(line for line in done.stdout.splitlines())
    assert told == snapshot["text"] != ""
