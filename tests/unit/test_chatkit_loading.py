import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from streaming.chatkit.loading import load
from tests.doubles import running


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of five modules that import one another."""
    package = tmp_path / "slowlib"
    package.mkdir()
    (package / "__init__.py").write_text("from slowlib import m1\nvalue = m1.value\n")
    for number in range(1, 5):
        (package / f"m{number}.py").write_text(f"from slowlib.m{number + 1} import value\n")
    (package / "m5.py").write_text("value = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "slowlib"
    for name in [name for name in sys.modules if name.startswith("slowlib")]:
        del sys.modules[name]


def test_others_run_between_the_modules_of_a_library(library: str) -> None:
    turns: list[int] = []

    def others() -> None:
        while "slowlib" not in sys.modules or not hasattr(sys.modules["slowlib"], "value"):
            turns.append(sum(name.startswith("slowlib") for name in sys.modules))
            gevent.sleep(0)

    with running(others, lambda: load(library)):
        pass
    assert len(set(turns)) > 3, turns
    assert sys.modules["slowlib"].value == 42  # type: ignore[attr-defined]


def test_two_that_ask_at_once_both_get_the_whole_library(library: str) -> None:
    found: list[int] = []

    def ask() -> None:
        load(library)
        import slowlib  # type: ignore[import-not-found]

        found.append(slowlib.value)

    with running(ask, ask, ask):
        pass
    assert found == [42, 42, 42]


def test_nothing_is_left_behind_by_a_library_that_is_not_there() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ModuleNotFoundError):
        load("slowlib_that_is_not_there")
    assert sys.meta_path == before
