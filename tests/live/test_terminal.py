"""``python -m streaming ask``: what it prints, what it survives, how it ends."""

import base64
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.cable import Cable
from tests.live.conftest import StartService
from tests.live.service import Service, Upstream, free_port
from tests.live.terminal import COLUMNS, InTerminal, Printed, Program, timed

DONE, FAILED, WRONG_USE, UNREACHABLE, STOPPED = 0, 1, 2, 3, 130
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_numbers = itertools.count(1)

Run = Callable[..., Program]


@pytest.fixture
def token() -> str:
    """A name nobody else uses in the upstream's log."""
    return f"terminal-{next(_numbers)}"


@pytest.fixture
def run() -> Iterator[Run]:
    """Start programs: ``run("ask", "hi", …)``, with `Program`'s options."""
    started: list[Program] = []

    def start(*arguments: str, **options: Any) -> Program:
        started.append(Program(arguments, **options))
        return started[-1]

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def run_in_terminal() -> Iterator[Callable[..., InTerminal]]:
    started: list[InTerminal] = []

    def start(*arguments: str, **options: Any) -> InTerminal:
        started.append(InTerminal(arguments, **options))
        return started[-1]

    yield start
    for terminal in started:
        terminal.kill()


@pytest.fixture
def cable(service: Service) -> Iterator[Cable]:
    """A way to ``service`` that can be cut."""
    cable = Cable(service.port)
    yield cable
    cable.remove()


def script(**keys: object) -> str:
    return f"play <<{json.dumps(keys)}>>"


def words(count: int) -> str:
    return "".join(f"w{i} " for i in range(count))


# Printing


def test_a_pipe_gets_the_models_text_and_nothing_else(service: Service, run: Run) -> None:
    printed = run("ask", "--url", service.url, script(tokens=30)).wait()
    assert printed == Printed(DONE, words(30), "")


def test_text_is_printed_when_it_comes(service: Service, run: Run, token: str) -> None:
    program = run("ask", "--url", service.url, script(tokens=2, pace_ms=1500, token=token))
    program.read_until("w0")
    assert program.is_running
    assert program.wait().out.endswith("w1 ")


@pytest.mark.parametrize("dash", [["-"], []])
def test_a_prompt_comes_from_stdin(service: Service, run: Run, dash: list[str]) -> None:
    program = run("ask", "--url", service.url, *dash, stdin=script(tokens=2).encode())
    assert program.wait() == Printed(DONE, "w0 w1 ", "")


def test_a_program_gets_events_with_the_cursors_to_resume_from(service: Service, run: Run) -> None:
    printed = run("ask", "--json", "--url", service.url, script(tokens=20, pace_ms=10)).wait()
    events = [json.loads(line) for line in printed.out.splitlines()]
    stream_id = events[0]["stream_id"]
    text = "".join(event["content"] for event in events if event["type"] == "token")
    assert (printed.status, text, events[-1]["type"]) == (DONE, words(20), "done")

    at = next(place for place, event in enumerate(events) if event.get("content") == "w11 ")
    resume = ["--resume", stream_id, "--after", events[at]["cursor"]]
    rest = run("ask", "--url", service.url, *resume).wait()
    assert rest == Printed(DONE, words(20).partition("w11 ")[2], "")


def test_reasoning_and_tools_go_to_stderr(service: Service, run: Run) -> None:
    thought = run("ask", "--url", service.url, script(play="reasoning")).wait()
    assert "first second" in thought.err
    assert "first" not in thought.out
    called = run("ask", "--url", service.url, script(play="tools")).wait()
    assert "→ weather" in called.err


def test_what_is_asked_reaches_the_model(
    service: Service, upstream: Upstream, run: Run, token: str, tmp_path: Path
) -> None:
    image = tmp_path / "dot.png"
    image.write_bytes(PNG)
    options = ["--instructions", "Be short", "--image", str(image), "--model", "other-model"]
    printed = run("ask", "--url", service.url, *options, script(tokens=1, token=token)).wait()
    assert printed.status == DONE, printed
    body = upstream.log(token)[0]["body"]
    assert body["model"] == "other-model"
    assert body["messages"][0] == {"role": "system", "content": "Be short"}
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert {"type": "image_url", "image_url": {"url": url}} in body["messages"][1]["content"]


# In a terminal


@pytest.mark.parametrize("above", [0, 30])
def test_the_progress_line_leaves_no_trace(
    service: Service, run_in_terminal: Callable[..., InTerminal], above: int
) -> None:
    """Text that fills rows to the last column, and scrolls, is where most can go wrong."""
    text = "".join(f"{i:05} " for i in range(400)) + "\n" + "x" * COLUMNS * 3 + "\nend"
    asked = script(text=text, pieces=200, pace_ms=5)
    terminal = run_in_terminal("ask", "--url", service.url, asked, above=above)
    terminal.see("tokens · ")
    assert terminal.wait() == DONE
    shown = "".join(line.ljust(COLUMNS) for line in terminal.screen.lines[above:]).rstrip()
    expected = "".join(
        line[at : at + COLUMNS].ljust(COLUMNS)
        for line in text.split("\n")
        for at in range(0, len(line), COLUMNS)
    ).rstrip()
    assert shown == expected
    assert terminal.screen.is_as_found


def test_the_progress_line_leaves_the_terminal_to_what_is_behind_a_pipe(
    service: Service, run_in_terminal: Callable[..., InTerminal]
) -> None:
    asked = script(tokens=60, pace_ms=10, first_ms=500)
    terminal = run_in_terminal("ask", "--url", service.url, asked, then="| cat")
    terminal.see("thinking")
    assert terminal.wait() == DONE
    assert "".join(line.ljust(COLUMNS) for line in terminal.screen.lines).rstrip() == words(60).rstrip()


def test_the_progress_line_is_erased_when_the_answer_goes_to_a_file(
    service: Service, run_in_terminal: Callable[..., InTerminal], tmp_path: Path
) -> None:
    kept = tmp_path / "answer.txt"
    asked = script(tokens=100, pace_ms=20)
    terminal = run_in_terminal("ask", "--url", service.url, asked, then=f"> {kept}")
    terminal.see("tokens · ")
    assert terminal.wait() == DONE
    assert (terminal.screen.text, kept.read_text()) == ("", words(100))


def test_a_model_cannot_control_the_terminal(
    service: Service, run: Run, run_in_terminal: Callable[..., InTerminal]
) -> None:
    text = "a\x1b[2Jb\x07c\x9b31md\re\x7ff\tg\n\x1b]0;title\x07h"
    asked = script(text=text, ascii=True)
    terminal = run_in_terminal("ask", "--url", service.url, asked)
    assert terminal.wait() == DONE
    assert (
        terminal.screen.text
        == (r"a\x1b[2Jb\x07c\x9b31md\x0de\x7ff" + "\tg\n").expandtabs() + r"\x1b]0;title\x07h"
    )
    # A file gets what the model said.
    assert run("ask", "--url", service.url, asked).wait().out == text
    as_json = run_in_terminal("ask", "--json", "--url", service.url, asked)
    assert as_json.wait() == DONE
    assert "\x9b" not in as_json.raw


@pytest.mark.parametrize(("environment", "is_dim"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_reasoning_is_dim_unless_colours_are_not_wanted(
    service: Service,
    run_in_terminal: Callable[..., InTerminal],
    environment: dict[str, str],
    is_dim: bool,
) -> None:
    terminal = run_in_terminal("ask", "--url", service.url, script(play="reasoning"), environment=environment)
    assert terminal.wait() == DONE
    assert ("first second" in terminal.screen.dimmed) == is_dim
    assert terminal.screen.is_as_found


def test_a_dumb_terminal_gets_no_sequences(
    service: Service, run_in_terminal: Callable[..., InTerminal]
) -> None:
    terminal = run_in_terminal("ask", "--url", service.url, script(tokens=9), environment={"TERM": "dumb"})
    assert terminal.wait() == DONE
    assert "\x1b" not in terminal.raw
    assert terminal.screen.text == words(9).rstrip()


# Stopping


def test_ctrl_c_stops_the_run_at_the_model(
    service: Service, upstream: Upstream, run_in_terminal: Callable[..., InTerminal], token: str
) -> None:
    asked = script(tokens=2000, pace_ms=20, token=token)
    terminal = run_in_terminal("ask", "--url", service.url, asked)
    terminal.see("w5 ")
    terminal.press("\x03")
    assert terminal.wait() == STOPPED
    upstream.wait_for_close(token)
    assert terminal.screen.text.endswith("stopped; this is the text so far")
    assert terminal.screen.is_as_found


def test_ctrl_c_before_the_first_word_stops_the_run(
    service: Service, upstream: Upstream, run: Run, token: str
) -> None:
    program = run("ask", "--url", service.url, script(play="hang", token=token))
    upstream.wait_for_request(token)
    program.interrupt()
    assert program.wait().status == STOPPED
    upstream.wait_for_close(token)


def test_a_second_ctrl_c_leaves_at_once(
    service: Service, run_in_terminal: Callable[..., InTerminal], cable: Cable
) -> None:
    terminal = run_in_terminal("ask", "--url", cable.url, script(tokens=2000, pace_ms=20))
    terminal.see("w5 ")
    cable.cut()
    terminal.see("reconnecting")
    terminal.press("\x03\x03")
    assert terminal.wait(5) == STOPPED, "it waits for a service that is gone"
    assert terminal.screen.is_as_found


def test_a_stop_that_does_not_arrive_is_said(service: Service, run: Run, cable: Cable) -> None:
    program = run("ask", "--url", cable.url, script(tokens=2000, pace_ms=20))
    program.read_until("w5 ")
    cable.cut()
    program.interrupt()
    printed = program.wait()
    assert printed.status == STOPPED
    assert "did not reach the service" in printed.err


def test_nobody_reading_the_output_stops_the_run(
    service: Service, upstream: Upstream, run: Run, token: str
) -> None:
    program = run("ask", "--url", service.url, script(tokens=2000, pace_ms=20, token=token))
    program.read_until("w5 ")
    program.close_stdout()
    assert program.wait() == Printed(STOPPED, "", "")
    upstream.wait_for_close(token)


def test_a_run_stopped_by_somebody_else_counts_as_stopped(service: Service, run: Run) -> None:
    program = run("ask", "--json", "--url", service.url, script(tokens=2000, pace_ms=20))
    stream_id = json.loads(program.read_until("\n").splitlines()[0])["stream_id"]
    service.request("POST", f"/streams/{stream_id}/cancel")
    assert program.wait().status == STOPPED


# Trouble


def test_a_network_that_is_cut_loses_and_repeats_nothing(service: Service, run: Run, cable: Cable) -> None:
    program = run("ask", "--url", cable.url, script(tokens=200, pace_ms=20))
    came = ""
    for place in ("w10 ", "w60 ", "w110 "):
        came += program.read_until(place)
        cable.cut()
        cable.mend()
    printed = program.wait()
    assert (printed.status, came + printed.out) == (DONE, words(200))


def test_a_network_that_holds_streams_back_is_polled(service: Service, run: Run) -> None:
    cable = Cable(service.port, holds_streams=True)
    try:
        program = run("ask", "--url", cable.url, script(tokens=300, pace_ms=50))
        came = program.read_until("w20 ")
        assert program.is_running  # it did not wait for the end
        printed = program.wait()
        assert (printed.status, came + printed.out) == (DONE, words(300))
        assert "holds event streams back: polling" in printed.err
    finally:
        cable.remove()


def test_a_killed_worker_is_told_and_the_text_kept(start_service: StartService, run: Run) -> None:
    service = start_service(workers=2)
    program = run("ask", "--url", service.url, script(tokens=2000, pace_ms=20))
    came = program.read_until("w20 ")
    service.kill_worker()
    printed = program.wait()
    came += printed.out
    assert printed.status == FAILED
    assert words(2000).startswith(came)
    assert "the worker that produced this answer is gone" in printed.err


def test_a_service_that_is_gone_is_looked_for_and_then_given_up(
    start_service: StartService, run: Run
) -> None:
    service = start_service()
    program = run("ask", "--patience", "2", "--url", service.url, script(tokens=2000, pace_ms=20))
    program.read_until("w5 ")
    service.kill()
    printed = program.wait()
    assert printed.status == UNREACHABLE
    assert "--resume st_" in printed.err


def test_a_model_that_fails_is_a_failure(service: Service, run: Run) -> None:
    printed = run("ask", "--url", service.url, script(play="cut", after=3, tokens=9)).wait()
    assert (printed.status, printed.out) == (FAILED, words(3))
    assert printed.err.startswith("Error: ")


def test_a_run_that_takes_too_long_is_a_failure(service: Service, run: Run) -> None:
    program = run("ask", "--timeout", "1", "--url", service.url, script(tokens=2000, pace_ms=20))
    printed = program.wait()
    assert printed.status == FAILED
    assert "longer than 1 seconds" in printed.err


def test_a_refusal_is_told_in_the_services_words(service: Service, run: Run) -> None:
    printed = run("ask", "--url", service.url, "--source", "nothing", "hi").wait()
    assert printed.status == FAILED
    assert "no source is called 'nothing'" in printed.err


def test_a_huge_answer_arrives_whole(service: Service, run: Run) -> None:
    printed, seconds = timed(run("ask", "--url", service.url, script(tokens=20_000)))
    assert (printed.status, printed.out == words(20_000)) == (DONE, True)
    assert seconds < 30


# Services that lie


class Liar:
    """Takes a run, and answers whoever follows it with the bytes given."""

    def __init__(self, followed: bytes, snapshot: bytes = b"", created: bytes | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        made = created if created is not None else answer(b'{"stream_id": "st_liar"}')
        self._answers = {b"POST /streams ": made, b"format=native": followed, b"events=1": snapshot}
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                asked = peer.recv(65536)
                said = next(
                    (said for what, said in self._answers.items() if what in asked.split(b"\r\n")[0] + b" "),
                    b"",
                )
                try:
                    peer.sendall(said)
                except OSError:
                    continue


def answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def stream(*events: dict[str, Any], ids: Iterator[int] | None = None) -> bytes:
    """An event stream that the connection ends."""
    body = b"".join(
        f"id: 1.{number}\ndata: {json.dumps(event)}\n\n".encode()
        for number, event in zip(ids or itertools.count(1), events, strict=False)
    )
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body


WORD = {"type": "token", "content": "word "}
END = {"type": "done", "finish_reason": "stop", "done": True, "last_seq": 2, "text_sha256": "0" * 64}
LIES = {
    "a page of HTML": ({"followed": answer(b"<html>", "text/html")}, UNREACHABLE),
    "nothing": ({"followed": b""}, UNREACHABLE),
    "no HTTP": ({"followed": b"SSH-2.0-OpenSSH\r\n"}, UNREACHABLE),
    "a stream that begins again and again": ({"followed": stream(WORD)}, FAILED),
    "half an answer": ({"followed": stream(WORD)[:-3]}, UNREACHABLE),
    "no JSON": ({"followed": stream(WORD).replace(b"{", b"[[[")}, UNREACHABLE),
    "JSON that is no event": ({"followed": stream({"hello": 1})}, UNREACHABLE),
    "deep JSON": ({"followed": stream(WORD).replace(b'"word "', b"[" * 99_999)}, UNREACHABLE),
    "another checksum": ({"followed": stream(WORD, END)}, FAILED),
    "another number of events": ({"followed": stream(WORD, {**END, "last_seq": 7})}, FAILED),
    "a gap": ({"followed": stream(WORD, WORD, ids=iter([1, 5]))}, FAILED),
    "a line without an end": ({"followed": stream() + b"data: " + b"x" * 20_000_000}, UNREACHABLE),
    "a run without an id": ({"followed": b"", "created": answer(b"{}")}, FAILED),
    "an id that is a path": ({"followed": b"", "created": answer(b'{"stream_id": "../../etc"}')}, FAILED),
    "a redirect": (
        {"followed": b"", "created": answer(b"", status="302 Found\r\nLocation: http://127.0.0.1:1")},
        FAILED,
    ),
    "a control sequence as an error": (
        {
            "followed": b"",
            "created": answer(b'{"error": {"message": "\\u001b[2J"}}', status="400 Bad Request"),
        },
        FAILED,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_service_that_lies_is_no_success(run: Run, lie: str) -> None:
    arguments, status = LIES[lie]
    liar = Liar(**arguments)
    try:
        printed = run("ask", "--patience", "1", "--url", liar.url, "hi").wait()
        assert printed.status == status, printed
        assert printed.err.startswith("Error: "), printed
        assert "Traceback" not in printed.err
        assert "\x1b" not in printed.err
        assert printed.out.count("word") <= 2
    finally:
        liar.close()


def test_a_service_that_is_not_there_cannot_be_reached(run: Run) -> None:
    printed = run("ask", "--url", f"http://127.0.0.1:{free_port()}", "hi").wait()
    assert printed.status == UNREACHABLE
    assert "cannot be reached: connection refused" in printed.err


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["serve"], "serve"),
        (["ask"], "PROMPT"),
        (["ask", "  "], "PROMPT"),
        (["ask", "--url", "localhost", "hi"], "--url"),
        (["ask", "--url", "http://127.0.0.1:99999", "hi"], "--url"),
        (["ask", "--url", "http://127.0.0.1/?a=1", "hi"], "--url"),
        (["ask", "--resume", "st_1"], "--url"),
        (["ask", "--resume", "../x", "--url", "http://127.0.0.1"], "--resume"),
        (["ask", "--resume", "st_1", "--url", "http://127.0.0.1", "hi"], "--resume"),
        (["ask", "--after", "1.2", "hi"], "--after"),
        (["ask", "--image", "/nonexistent", "hi"], "--image"),
        (["ask", "--image", __file__, "hi"], "--image"),
        (["ask", "--timeout", "nan", "hi"], "--timeout"),
        (["ask", "--timeout", "0", "hi"], "--timeout"),
        (["ask", "--input", "{", "--source", "x"], "--input"),
        (["ask", "--thread", "t", "hi"], "--thread"),
    ],
)
def test_a_wrong_command_line_is_named(run: Run, arguments: list[str], named: str) -> None:
    printed = run(*arguments).wait()
    assert (printed.status, printed.out) == (WRONG_USE, "")
    assert named in printed.err.splitlines()[-1]


def test_settings_that_cannot_be_used_are_named(run: Run) -> None:
    printed = run("ask", "hi", environment={"PORT": "many"}).wait()
    assert printed.status == WRONG_USE
    assert "PORT" in printed.err


def test_bytes_that_are_no_text_are_refused(run: Run) -> None:
    printed = run("ask", stdin=b"\xff\xfe").wait()
    assert printed.status == WRONG_USE
    assert "UTF-8" in printed.err


def test_help_says_how_to_ask_and_what_the_status_means(run: Run) -> None:
    printed = run("--help").wait()
    assert printed.status == DONE
    assert "ask" in printed.out
    printed = run("ask", "--help").wait()
    assert "130  stopped" in printed.out


# In this process


def test_without_a_service_the_demo_model_answers_here(run: Run) -> None:
    printed = run("ask", "ping").wait()
    assert printed == Printed(DONE, "pong", "")


def test_a_runnable_can_be_asked_here(run: Run) -> None:
    environment = {"RUNNABLES": "", "DEMO_TOKENS_PER_SECOND": "0"}
    printed = run("ask", "--source", "tools", "What is the weather in Paris?", environment=environment).wait()
    assert printed.status == DONE, printed
    assert "→ get_weather" in printed.err
    assert "Paris" in printed.out


def test_ctrl_c_closes_the_model_asked_from_here(upstream: Upstream, run: Run, token: str) -> None:
    environment = {"OPENAI_BASE_URL": upstream.base_url, "MODEL": "test-model"}
    asked = script(tokens=2000, pace_ms=20, token=token)
    program = run("ask", asked, environment=environment)
    program.read_until("w5 ")
    program.interrupt()
    printed = program.wait()
    assert printed.status == STOPPED
    upstream.wait_for_close(token)


def test_nothing_is_left_at_the_model_when_the_output_is_closed(
    upstream: Upstream, run: Run, token: str
) -> None:
    environment = {"OPENAI_BASE_URL": upstream.base_url, "MODEL": "test-model"}
    program = run("ask", script(tokens=2000, pace_ms=20, token=token), environment=environment)
    program.read_until("w5 ")
    program.close_stdout()
    assert program.wait() == Printed(STOPPED, "", "")
    upstream.wait_for_close(token)
