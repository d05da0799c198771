"""Who asks: the one to whom streams, threads and limits belong."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["open", "none", "key", "visitor", "user"]
Scope = Literal["run", "read", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("run", "read", "metrics", "admin")


class Principal(Struct, frozen=True):
    """Somebody who was recognised. What belongs to one principal does not exist for another."""

    id: str
    """What is written beside what belongs to it; "" only in the open mode, where all are one."""
    kind: Kind = "open"
    """How it was recognised: an API key, the cookie of a public page, or a name that a proxy gave."""
    scopes: frozenset[str] = frozenset()
    """What it may do, besides reading and ending what it owns."""
    name: str = ""
    """For people. Not unique."""
    limits: Mapping[str, Any] = MappingProxyType({})
    """What it may use, where that is not what everybody may: the limits' own names and values."""

    def may(self, need: Scope) -> bool:
        """Say whether its scopes cover this one. Who may run may read; an admin sees the metrics too."""
        return not self.scopes.isdisjoint(_COVERED_BY[need])


_COVERED_BY: dict[Scope, frozenset[str]] = {
    "run": frozenset({"run"}),
    "read": frozenset({"run", "read", "admin"}),
    "metrics": frozenset({"metrics", "admin"}),
    "admin": frozenset({"admin"}),
}
OPEN = Principal("", scopes=frozenset({"run", "admin"}))
"""Everybody, where nobody has to say who it is."""
NOBODY = Principal("nobody", "none")
"""Who has not said who it is, where that is needed for anything that belongs to somebody."""
