"""What the security notes claim can be looked up: every test they name is there, no item is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTES = ["SECURITY.md", "CONTRIBUTING.md", "docs/security.md", "docs/asvs.md", "docs/deploy.md"]
STATES = {"met", "partly", "not", "yours", "n/a"}
# Levels 1 and 2 of the standard, but for OAuth (V10) and WebRTC (V17).
ITEMS = """1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1 3.2:2 3.3:4 3.4:6 3.5:5 3.7:2 4.1:3 4.2:1
    4.3:2 4.4:4 5.1:1 5.2:3 5.3:2 5.4:3 6.1:3 6.2:11 6.3:3 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3 7.2:4 7.3:2
    7.4:5 7.5:2 7.6:2 8.1:2 8.2:3 8.3:1 8.4:1 9.1:3 9.2:4 11.1:2 11.2:3 11.3:3 11.4:3 11.5:1 11.6:1
    12.1:3 12.2:2 12.3:4 13.1:1 13.2:5 13.3:2 13.4:5 14.1:2 14.2:4 14.3:3 15.1:3 15.2:3 15.3:7
    16.1:1 16.2:5 16.3:4 16.4:3 16.5:3"""


def named_tests() -> list[str]:
    found: set[str] = set()
    for name in NOTES:
        found |= set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", (ROOT / name).read_text()))
    return sorted(found)


@pytest.mark.parametrize("place", named_tests())
def test_every_test_that_is_named_is_there(place: str) -> None:
    path, _, test = place.partition("::")
    assert (ROOT / path).is_file(), path
    assert not test or _is_there(path, test), place


def _is_there(path: str, test: str) -> bool:
    file = ROOT / path
    return file.is_file() and (not test or f"\ndef {test}(" in file.read_text())


@pytest.mark.parametrize("name", NOTES)
def test_every_link_between_the_notes_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[\w-]+)?\)", (ROOT / name).read_text()):
        path = (ROOT / name).parent.joinpath(target).resolve().relative_to(ROOT)
        assert (ROOT / path).exists(), target


def rows(name: str) -> list[tuple[str, str, str, str]]:
    """Return the rows of the tables that say what is met: item, state, how, tests."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    return [tuple(row) for row in cells if len(row) == 4 and row[1] in STATES]  # type: ignore[misc]


def test_every_item_of_the_standard_is_judged_once() -> None:
    wanted = [f"{section}.{n}" for section, _, many in _sections() for n in range(1, int(many) + 1)]

    judged = [item for row in rows("docs/asvs.md") for item in row[0].split(", ")]

    assert sorted(judged) == sorted(wanted)


def _sections() -> list[tuple[str, str, str]]:
    return [each.partition(":") for each in ITEMS.split()]


@pytest.mark.parametrize(("list_of", "many"), [("API", 10), ("LLM", 10)])
def test_every_item_of_the_top_tens_is_judged(list_of: str, many: int) -> None:
    judged = [row[0].split()[0] for row in rows("docs/security.md") if row[0].startswith(list_of)]

    assert judged == [
        f"{list_of}{n:02d}" if list_of == "LLM" else f"{list_of}{n}" for n in range(1, many + 1)
    ]


def test_what_is_not_met_says_what_is_missing() -> None:
    for name in ("docs/asvs.md", "docs/security.md"):
        for item, state, how, _ in rows(name):
            assert state == "met" or how, item


def test_what_is_met_says_how_or_where_it_is_tested() -> None:
    for name in ("docs/asvs.md", "docs/security.md"):
        for item, _, how, tests in rows(name):
            assert how or tests, item
