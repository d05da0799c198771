"""Ask for known vulnerabilities of what requirements.txt pins: fail on one, say so if nobody could be asked.

pip-audit alone says "No known vulnerabilities found" also of packages it learnt nothing about. So one
package is asked about first, and what could not be audited is counted.

Exit status: 0 none known, or it could not be run; 1 at least one; 3 it could not be run, with --required.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
FINE, VULNERABLE, NOT_RUN = 0, 1, 3
# Of the first question and of all.
PROBE_SECONDS, AUDIT_SECONDS = 30, 240

Audit = Callable[[str, float], list[dict[str, Any]]]
"""Return what pip-audit says of a requirements file's text, within so many seconds. Raises `CannotAudit`."""


class CannotAudit(Exception):
    """Nobody answered."""


class Found(NamedTuple):
    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed_in: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=HERE.parent / "requirements.txt")
    parser.add_argument("--required", action="store_true", help="not to be able to ask is a failure")
    asked = parser.parse_args(arguments)
    ignored = read_ignored((HERE / "audit-ignored.toml").read_text(), datetime.date.today())
    return audit(asked.file.read_text(), ignored, asked.required, ask_pip_audit)


def audit(pinned: str, ignored: dict[str, str], required: bool, ask: Audit) -> int:
    """Print what was found and return the exit status. ``ignored`` has a reason for each advisory."""
    try:
        first = packages(pinned)[0]
        if unknown := _not_audited(ask(first, PROBE_SECONDS)):
            raise CannotAudit(f"the advisories of {', '.join(unknown)} could not be had")
        dependencies = ask(pinned, AUDIT_SECONDS)
    except CannotAudit as error:
        print(f"NOT AUDITED: {error}. Nothing is known of any package; try again with a network.")
        return NOT_RUN if required else FINE
    found = [each for dependency in dependencies for each in _found(dependency)]
    bad = [each for each in found if not {each.advisory, *each.aliases} & ignored.keys()]
    for each in found:
        known_as = ", ".join([each.advisory, *each.aliases])
        fixed = f"fixed in {', '.join(each.fixed_in)}" if each.fixed_in else "no release has it fixed"
        excuse = "" if each in bad else " (ignored: " + _reason(each, ignored) + ")"
        print(f"{each.package} {each.version}: {known_as}; {fixed}{excuse}")
    unknown = _not_audited(dependencies)
    print(
        f"{len(dependencies) - len(unknown)} packages audited, {len(bad)} known vulnerabilities, "
        f"{len(found) - len(bad)} ignored" + (f"; NOT AUDITED: {', '.join(unknown)}" if unknown else "")
    )
    if bad:
        return VULNERABLE
    return NOT_RUN if unknown and required else FINE


def read_ignored(text: str, today: datetime.date) -> dict[str, str]:
    """Return the reason for each advisory that is ignored today; one whose date has passed counts again."""
    entries = tomllib.loads(text).get("ignored", [])
    for entry in entries:
        if set(entry) != {"id", "reason", "until"} or not isinstance(entry["until"], datetime.date):
            raise SystemExit(f"audit-ignored.toml: an entry has an id, a reason and a date until: {entry}")
    return {entry["id"]: entry["reason"] for entry in entries if today <= entry["until"]}


def packages(pinned: str) -> list[str]:
    """Return the blocks of a requirements file, each a package with its hashes."""
    return [block for block in re.split(r"\n(?=\S)", pinned) if "==" in block.partition("\n")[0]]


def ask_pip_audit(pinned: str, seconds: float) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text(pinned)
        # Only what is pinned is asked about: nothing is resolved or installed.
        how = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pip_audit", "-r", str(file), *how, "--timeout", "10"],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CannotAudit(f"no answer within {seconds:.0f} seconds") from None
    try:
        answer: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        raise CannotAudit(f"pip-audit ended with {ended.returncode}: {last[:200]}") from None
    return answer


def _not_audited(dependencies: Sequence[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in dependencies if "skip_reason" in each]


def _found(dependency: dict[str, Any]) -> list[Found]:
    name, version = dependency["name"], dependency.get("version", "")
    return [
        Found(name, version, each["id"], tuple(each.get("aliases", ())), tuple(each.get("fix_versions", ())))
        for each in dependency.get("vulns", ())
    ]


def _reason(found: Found, ignored: dict[str, str]) -> str:
    return next(ignored[name] for name in (found.advisory, *found.aliases) if name in ignored)


if __name__ == "__main__":
    sys.exit(main())
