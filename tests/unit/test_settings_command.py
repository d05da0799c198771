"""``python -m streaming settings``: the table in docs/ is true, and a check says what would be used."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from streaming.__main__ import main
from streaming.commands._described import NOT_VARIABLES, Described, described
from streaming.commands._settings_table import markdown
from streaming.commands.settings import masked, slips
from streaming.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HOLDS_SECRETS = ("key", "keys", "secret", "secrets", "token", "tokens", "password", "proxy")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in described():
        monkeypatch.delenv(setting.variable, raising=False)


def test_the_table_in_docs_is_what_the_command_prints() -> None:
    made = markdown(described())

    assert (ROOT / "docs/settings.md").read_text() == made, "stale: make settings"


@pytest.mark.parametrize("setting", described(), ids=lambda setting: setting.variable)
def test_every_setting_is_explained_in_one_place(setting: Described) -> None:
    assert setting.explanation.endswith("."), f"{setting.field} has no docstring in streaming/settings.py"
    assert setting.section


def test_every_field_is_described_once_and_in_its_section() -> None:
    assert [setting.field for setting in described()] == [
        each.name for each in fields(Settings) if each.name not in NOT_VARIABLES
    ]
    sections = [setting.section for setting in described()]
    changes = [new for old, new in zip(["", *sections], sections, strict=False) if new != old]
    assert len(changes) == len(set(changes)), "a section is begun twice"


def test_what_by_its_name_holds_a_secret_is_kept_out_of_the_repr() -> None:
    for setting in described():
        if setting.field.rpartition("_")[2] in HOLDS_SECRETS and setting.kind == "text":
            assert setting.is_secret, f"{setting.field}: field(default=…, repr=False)"


@dataclass(frozen=True)
class Small:
    # First
    wait_seconds: float = 1.5
    """How long
    to wait."""
    names: tuple[str, ...] = ("a", "b")

    # Second
    # and no heading
    level: Literal["low", "high"] = "low"
    """Which."""
    token: str = field(default="", repr=False)
    # not a heading either, as nothing is empty before it
    loud: bool = False

    @property
    def shown(self) -> str:
        """Not a setting."""
        return self.level


def test_sections_units_choices_and_secrets_are_read_from_the_class() -> None:
    assert described(Small) == [
        Described("wait_seconds", "WAIT_SECONDS", "First", "How long to wait.", "seconds", "1.5", False),
        Described("names", "NAMES", "First", "", "list, by commas", "a,b", False),
        Described("level", "LEVEL", "Second", "Which.", "`low`, `high`", "low", False),
        Described("token", "TOKEN", "Second", "", "text", "", True),
        Described("loud", "LOUD", "Second", "", "yes or no", "false", False),
    ]


def check(capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["settings", "--check"])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_check_shows_what_is_set_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("EVENTLOG_URL", "redis://canary:canary@store:6379/0?password=canary")
    monkeypatch.setenv("UPSTREAM_PROXY", "http://canary:canary@proxy:3128")
    monkeypatch.setenv("DRAIN_SECONDS", "20")

    status, said, complaints = check(capsys)

    assert (status, complaints) == (0, "")
    assert said.splitlines()[:4] == [
        "OPENAI_API_KEY=set, not shown",
        "UPSTREAM_PROXY=http://proxy:3128",
        "EVENTLOG_URL=redis://store:6379/0",
        "DRAIN_SECONDS=20",
    ]
    assert "canary" not in said


def test_without_a_flag_every_setting_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0

    said = capsys.readouterr().out
    assert [setting.variable for setting in described() if f"{setting.variable}=" not in said] == []
    assert "PORT=8000  (default)" in said


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "http", "PORT: 'http' is not a whole number"),
        ("EVENTLOG_URL", "mysql://host", "EVENTLOG_URL: 'mysql' is not one of memory://"),
        ("OPENAI_BASE_URL", "localhost", "OPENAI_BASE_URL: 'localhost' is not a URL"),
    ],
)
def test_a_check_refuses_what_a_start_would(
    name: str,
    value: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)

    status, said, complaints = check(capsys)

    assert (status, said) == (1, "")
    assert complaints.startswith(f"Sluice cannot start. {sentence}")


def test_a_slip_in_a_name_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRAIN_SECOND", "20")

    status, _, complaints = check(capsys)

    assert status == 0
    assert complaints == "note: DRAIN_SECOND is not a setting; DRAIN_SECONDS is\n"


def test_no_slip_is_seen_in_names_of_others() -> None:
    known = {setting.variable for setting in described()}
    others = dict.fromkeys(
        ["PATH", "HOME", "LANG", "OPENAI_ORG_ID", "MODE", "LOGNAME", "SHELL", "PORTAL"], ""
    )

    assert slips(known, others) == []


@pytest.mark.parametrize("secret", ["sk-canary", "canary", "canary://", "//canary", "http://[canary"])
def test_what_is_no_url_is_not_shown_at_all(secret: str) -> None:
    assert "canary" not in masked(secret).replace("canary://", "")


def test_a_wrong_command_line_exits_with_2() -> None:
    with pytest.raises(SystemExit) as left:
        main(["settings", "--marked"])
    assert left.value.code == 2
