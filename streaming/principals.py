"""Who asks: the one to whom streams, threads and limits belong."""

from typing import Literal

from msgspec import Struct

Kind = Literal["open", "key", "visitor", "user"]


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


OPEN = Principal("", scopes=frozenset({"run", "admin"}))
"""Everybody, where nobody has to say who it is."""
