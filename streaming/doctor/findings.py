"""What a doctor says: how bad it is, what was measured, why it matters, and what to change."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "note", "warning", "fault"]
LEVELS: tuple[Level, ...] = ("fault", "warning", "note", "ok")
"""Worst first."""


class Change(Struct, frozen=True):
    where: str
    """The program whose configuration it is: nginx, Caddy, gunicorn, a setting of this service."""
    setting: str
    """As it is to be written there, or a sentence where nothing can be written."""


class Finding(Struct, frozen=True):
    level: Level
    code: str
    """Its name, for programs."""
    title: str
    measured: str
    why: str = ""
    changes: tuple[Change, ...] = ()


def worst_first(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
