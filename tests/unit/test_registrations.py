"""What users bring is found by its name, or its name is told with what is wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import create_app
from streaming.errors import InvalidRequest, SettingsError
from streaming.registrations import EXAMPLES, Registration
from streaming.runnables import _ahead
from streaming.runnables._registry import load_registered
from streaming.settings import Settings

ROOT = Path(__file__).parents[2]
Bring = Callable[[str], str]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Return a function that writes a user's module, and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        name = f"brought_{tmp_path.name.replace('-', '_')}_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def settings(*runnables: str) -> Settings:
    return Settings(eventlog_url="memory://", demo_tokens_per_second=0, runnables=runnables)


def refused(*runnables: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_registered(settings(*runnables))
    return str(error.value)


def test_the_variable_names_objects_and_what_they_are_to_be_called() -> None:
    read = Settings.from_environ({"RUNNABLES": " a=b.c:d , e-2 = f:g.h"})

    assert read.registrations == (Registration("a", "b.c", "d"), Registration("e-2", "f", "g.h"))


def test_without_the_variable_the_examples_are_there_and_with_none_nothing() -> None:
    assert Settings().runnables == EXAMPLES
    assert {each.module.partition(".")[0] for each in Settings().registrations} == {"examples"}
    assert Settings.from_environ({"RUNNABLES": "none"}).registrations == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("=a:b", "''"),
        ("Ab=a:b", "'Ab'"),
        ("a b=a:b", "'a b'"),
        ("a" * 65 + "=a:b", "a" * 65),
        ("a=b", "'b'"),
        ("a=", "a: ''"),
        ("a=b:", "'b:'"),
        ("a=b:c d", "'b:c d'"),
        ("a=b:c,a=d:e", "a is there twice"),
        ("demo=b:c", "demo is the name of a model"),
        ("none,a=b:c", "none: ''"),
    ],
)
def test_a_registration_that_cannot_be_read_is_told(text: str, named: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_environ({"RUNNABLES": text})

    assert str(error.value).startswith("RUNNABLES: ")
    assert named in str(error.value)


def test_examples_give_way_to_models_of_the_same_name() -> None:
    named = Settings(openai_base_url="http://127.0.0.1:9/v1", models=("agent", "m"))

    assert "agent" not in [each.name for each in named.registrations]


def test_the_file_of_upstreams_may_register_too(tmp_path: Path) -> None:
    file = tmp_path / "upstreams.toml"
    table = '[upstreams.u]\nbase_url = "http://127.0.0.1:9/v1"\n[models.m]\nupstream = "u"\n'
    file.write_text(table + '[runnables]\nsupport = "myapp.chains:chain"\n')

    read = Settings.from_environ({"UPSTREAMS": str(file)})

    assert read.registrations == (Registration("support", "myapp.chains", "chain"),)
    with pytest.raises(SettingsError, match=r"RUNNABLES: leave it out"):
        Settings.from_environ({"UPSTREAMS": str(file), "RUNNABLES": "none"})
    file.write_text(table + "[runnables]\n")
    assert Settings.from_environ({"UPSTREAMS": str(file)}).registrations == ()
    file.write_text(table + "[runnables]\nsupport = 1\n")
    with pytest.raises(SettingsError, match=r"\[runnables\]: write lines such as"):
        Settings.from_environ({"UPSTREAMS": str(file)})


def test_what_cannot_be_found_is_told_by_the_name_at_fault(bring: Bring) -> None:
    broken = bring("raise ValueError('a key')")
    needs = bring("import not_there_at_all")
    leaves = bring("import sys; sys.exit(3)")
    number = bring("here = 3")

    assert refused("a=nowhere.at_all:x") == "RUNNABLES: a: there is no module nowhere"
    assert refused(f"a={needs}:x") == f"RUNNABLES: a: {needs} needs the module not_there_at_all"
    assert refused(f"a={broken}:x") == f"RUNNABLES: a: importing {broken} raised ValueError: a key"
    assert refused(f"a={leaves}:x") == f"RUNNABLES: a: importing {leaves} raised SystemExit: 3"
    assert refused(f"a={number}:there") == f"RUNNABLES: a: {number} has no there"
    assert refused(f"a={number}:here") == (
        f"RUNNABLES: a: {number}:here is a int, which is none of: agents, langchain, langgraph, tools"
    )
    assert refused(f"chat={number}:here") == "RUNNABLES: chat: a source of this service has that name"


def test_an_object_inside_of_another_is_found_and_served_by_its_kind(bring: Bring) -> None:
    name = bring(
        "from streaming.runnables.tools import ToolLoop\n"
        "class Team:\n    assistant = ToolLoop([], instructions='Be brief.')\n"
    )

    (found,) = load_registered(settings(f"a={name}:Team.assistant")).values()

    assert (found.name, found.kind, found.modes, found.configurable) == ("a", "tools", (), None)


def test_an_unknown_source_is_refused_with_the_names_of_the_runnables_too() -> None:
    app = create_app(settings("tools=examples.tool_loop:assistant"))
    streams = app.extensions["streams"]
    try:
        with pytest.raises(InvalidRequest, match="known: chat, responses, tools"):
            streams._load_source("nope")
    finally:
        streams.drain(0, 0)
        streams.close()


def test_an_example_that_cannot_be_had_is_left_out_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = "examples.tool_loop:assistant"
    examples = (f"tools={place}", "gone=examples.gone:x")
    monkeypatch.setattr("streaming.settings.EXAMPLES", examples)
    monkeypatch.setattr("streaming.runnables._registry.EXAMPLES", examples)

    assert list(load_registered(settings(*examples))) == ["tools"]
    assert (
        refused(f"tools={place}", "gone=examples.gone:y")
        == "RUNNABLES: gone: there is no module examples.gone"
    )


FRAMEWORKS = ("langchain_core", "langchain", "langgraph", "agents", "langchain_openai")


@pytest.mark.parametrize(
    ("runnables", "imported"),
    [
        ((), []),
        (("tools=examples.tool_loop:assistant",), []),
        (("explain=examples.chain:chain",), ["langchain_core", "langchain_openai"]),
        (("support=examples.agents_sdk:support",), ["agents"]),
    ],
)
def test_only_what_is_registered_is_imported(runnables: tuple[str, ...], imported: list[str]) -> None:
    asks = f"""
import tests._patched, sys
from app import create_app
from streaming.settings import Settings
registered = {runnables or ("none",)!r}
app = create_app(Settings(eventlog_url="memory://", demo_tokens_per_second=0, runnables=registered))
answer = app.test_client().get("/stream?prompt=hello")
assert b'"done":true' in answer.data, answer.data
print(*sorted(set(sys.modules) & {set(FRAMEWORKS)!r}))
import os; os._exit(0 if not sys.stdout.flush() else 1)
"""
    run = subprocess.run([sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == imported


def test_libraries_to_import_ahead_are_read_from_the_files_without_running_them(bring: Bring) -> None:
    name = bring("import langgraph.graph, json\nfrom streaming.models import chat_model\nraise SystemExit")

    found = _ahead.libraries_of([Registration("a", name, "x")])

    assert {"langgraph.graph", "langgraph.pregel", "langchain_openai"} <= set(found)
    assert not {"json", "streaming.models", name} & set(found)
    assert name not in sys.modules


@pytest.mark.parametrize("text", ["import (", "\0", "from . import x"])
def test_files_that_cannot_be_read_ahead_are_left_to_the_worker(bring: Bring, text: str) -> None:
    found = _ahead.libraries_of([Registration("a", bring(text), "x"), Registration("b", "not.there", "x")])

    assert found == ["httpx"]


def test_a_module_in_folders_without_init_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer_folder" / "inner_folder"
    inner.mkdir(parents=True)
    (inner / "mine.py").write_text("import langgraph.graph\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert "langgraph.graph" in _ahead.libraries_of(
        [Registration("a", "outer_folder.inner_folder.mine", "x")]
    )


def test_importing_ahead_starts_no_thread_and_opens_no_socket() -> None:
    asks = """
import tests._patched, importlib, os
from streaming.settings import Settings
from streaming.runnables._ahead import libraries_of
names = libraries_of(Settings().registrations)
assert "langgraph.pregel" in names and "agents" in names, names
for name in names:
    importlib.import_module(name)
files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
sockets = [file for file in files if os.path.lexists(file) and os.readlink(file).startswith("socket")]
print(len(os.listdir("/proc/self/task")), sockets)
"""
    run = subprocess.run([sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert run.stdout == "1 []\n", run.stderr
