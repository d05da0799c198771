"""What the service is made of: pinned, above the floors, audited where that can be, and listed."""

import datetime
import json
import re
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PINNED = (ROOT / "requirements.txt").read_text()
FOR_TESTS = (ROOT / "requirements-dev.txt").read_text()
FLOORS = tomllib.loads((ROOT / ".ci/floors.toml").read_text())["floor"]


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = script("audit")
sbom = script("sbom")


# Floors


@pytest.mark.parametrize("pinned", [PINNED, FOR_TESTS], ids=["service", "tests"])
@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: floor["package"])
def test_nothing_is_pinned_below_its_floor(floor: dict[str, str], pinned: str) -> None:
    versions = re.findall(rf"^{re.escape(floor['package'])}==([^ \\]+)", pinned, re.M)

    assert versions, "no longer pinned: take its floor away"
    assert min(map(Version, versions)) >= Version(floor["version"])


def test_every_floor_says_why_and_where_that_was_read() -> None:
    for floor in FLOORS:
        assert set(floor) == {"package", "version", "advisory", "reason", "source"}
        assert all(floor.values())


def test_every_floor_is_in_the_security_notes() -> None:
    notes = (ROOT / "docs/security.md").read_text()
    missing = [
        each["package"] for each in FLOORS if f"| {each['package']} | {each['version']} |" not in notes
    ]

    assert missing == []


# Audit


def said(name: str, *advisories: str, fixed_in: str = "2.0") -> dict[str, Any]:
    vulns = [{"id": each, "aliases": [f"CVE-of-{each}"], "fix_versions": [fixed_in]} for each in advisories]
    return {"name": name, "version": "1.0", "vulns": vulns}


def unknown(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": f"Dependency not found on PyPI and could not be audited: {name}"}


class Advisories:
    """Answers as pip-audit does, of the packages it is asked about; it counts how often."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def __call__(self, pinned: str, seconds: float) -> list[dict[str, Any]]:
        self.asked.append(pinned)
        for each in self._answers:
            if isinstance(each, Exception):
                raise each
        names = re.findall(r"^(\S+)==", pinned, re.M)
        return [each for each in self._answers if isinstance(each, dict) and each["name"] in names]


TWO = "anyio==1.0 \\\n    --hash=sha256:00\n    # via x\nflask==1.0 \\\n    --hash=sha256:11\n"


def test_a_known_vulnerability_fails_and_says_where_it_is_fixed(capsys: pytest.CaptureFixture[str]) -> None:
    status = audit.audit(TWO, {}, False, Advisories(said("anyio"), said("flask", "GHSA-1")))

    told = capsys.readouterr().out
    assert status == 1
    assert "flask 1.0: GHSA-1, CVE-of-GHSA-1; fixed in 2.0\n" in told
    assert "2 packages audited, 1 known vulnerabilities, 0 ignored" in told


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-of-GHSA-1"])
def test_an_ignored_one_is_told_with_its_reason_and_fails_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Advisories(said("anyio"), said("flask", "GHSA-1"))

    assert audit.audit(TWO, {name: "not used here"}, False, ask) == 0
    assert "(ignored: not used here)" in capsys.readouterr().out


def test_none_known_is_said_only_of_what_was_audited(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.audit(TWO, {}, False, Advisories(said("anyio"), unknown("flask"))) == 0

    assert "1 packages audited, 0 known vulnerabilities, 0 ignored; NOT AUDITED: flask" in (
        capsys.readouterr().out
    )
    assert audit.audit(TWO, {}, True, Advisories(said("anyio"), unknown("flask"))) == 3


def test_without_a_network_one_package_is_asked_about_and_that_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = Advisories(unknown("anyio"), unknown("flask"))

    assert audit.audit(TWO, {}, False, ask) == 0
    assert len(ask.asked) == 1
    assert "flask" not in ask.asked[0]
    assert capsys.readouterr().out.startswith("NOT AUDITED: the advisories of anyio could not be had")
    assert audit.audit(TWO, {}, True, ask) == 3


def test_an_audit_that_breaks_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Advisories(audit.CannotAudit("no answer within 30 seconds"))

    assert audit.audit(TWO, {}, False, broken) == 0
    assert capsys.readouterr().out.startswith("NOT AUDITED: no answer within 30 seconds")


def test_an_ignored_advisory_counts_again_after_its_day() -> None:
    text = '[[ignored]]\nid = "GHSA-1"\nreason = "not used here"\nuntil = 2027-01-31\n'

    assert audit.read_ignored(text, datetime.date(2027, 1, 31)) == {"GHSA-1": "not used here"}
    assert audit.read_ignored(text, datetime.date(2027, 2, 1)) == {}


@pytest.mark.parametrize("field", ["reason", "until", "id"])
def test_an_ignored_advisory_has_a_reason_and_a_day(field: str) -> None:
    whole = {"id": '"GHSA-1"', "reason": '"why"', "until": "2027-01-31"}
    lines = [f"{name} = {value}" for name, value in whole.items() if name != field]

    with pytest.raises(SystemExit, match="a reason and a date"):
        audit.read_ignored("\n".join(["[[ignored]]", *lines]), datetime.date(2026, 1, 1))


def test_what_is_ignored_in_this_repository_can_be_read() -> None:
    audit.read_ignored((ROOT / ".ci/audit-ignored.toml").read_text(), datetime.date(2026, 1, 1))


def test_every_pin_is_asked_about() -> None:
    assert len(audit.packages(PINNED)) == len(re.findall(r"^[\w.-]+==", PINNED, re.M)) > 50


# What it is made of


def made() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sbom.document(PINNED, (ROOT / "static/vendor/README.md").read_text(), project)


def test_the_list_of_parts_is_valid_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made())) is None


def test_the_list_of_parts_has_every_pin_and_every_vendored_script() -> None:
    parts = {part["purl"] for part in made()["components"]}

    pins = re.findall(r"^([\w.-]+)==([^ \\]+)", PINNED, re.M)
    assert {f"pkg:pypi/{name}@{version}" for name, version in pins} <= parts
    scripts = [part for part in made()["components"] if part["purl"].startswith("pkg:npm/")]
    assert {part["properties"][0]["value"] for part in scripts} == {
        f"static/vendor/{file.name}" for file in (ROOT / "static/vendor").glob("*.js")
    }
