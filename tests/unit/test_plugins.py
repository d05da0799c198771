"""A file in a family's folder is a plug-in; nothing else is."""

import sys
from pathlib import Path

import pytest

from streaming import plugins
from streaming.errors import InvalidRequest
from streaming.formats import Wants

FAMILIES = ["eventlogs", "formats", "sources", "web"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_of_a_family_is_found_and_helpers_are_not(family: str) -> None:
    folder = Path(str(plugins.import_module(f"streaming.{family}").__file__)).parent
    files = {path.stem for path in folder.glob("*.py") if not path.name.startswith("_")}

    assert plugins.names(family) == sorted(files)
    assert files


@pytest.mark.parametrize(
    ("family", "name", "singular"),
    [
        ("formats", "xml", "format"),
        ("sources", "nobody", "source"),
        ("sources", "_demo", "source"),
        ("sources", "__init__", "source"),
        ("sources", "", "source"),
        ("sources", "chat.os", "source"),
        ("sources", "../app", "source"),
        ("sources", "Chat", "source"),
        ("eventlogs", "_ids", "eventlog"),
    ],
)
def test_another_name_is_refused_with_the_known_ones(family: str, name: str, singular: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plugins.load(family, name)

    assert refused.value.code == f"unknown_{singular}"
    assert refused.value.param == singular
    for known in plugins.names(family):
        assert known in str(refused.value)


def test_only_what_is_asked_for_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "streaming.formats.text", raising=False)
    monkeypatch.delitem(sys.modules, "streaming.formats.ndjson", raising=False)

    plugins.load("formats", "text")

    assert "streaming.formats.text" in sys.modules
    assert "streaming.formats.ndjson" not in sys.modules


@pytest.mark.parametrize("name", plugins.names("formats"))
def test_a_format_is_made_anew_each_time(name: str) -> None:
    one, other = (
        plugins.create("formats", name, Wants()),
        plugins.create("formats", name, Wants(metrics=True)),
    )

    assert one is not other
    assert one.media_type in ("text/event-stream", "application/x-ndjson", "application/json")
