"""API keys as they are kept, and what every store of them promises.

1. A key itself is in no store: only its SHA-256. A key is 256 random bits, which
   nobody can guess from a hash, however fast it is; a slow hash is for passwords.
2. What was written is there for every worker once the call returned.
3. A change is made only to what was read: see ``swap``.

A store is in the same database as the event log, and shares its fate.
"""

from collections.abc import Collection
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from streaming.principals import Scope


class Key(Struct, frozen=True, omit_defaults=True):
    id: str
    """Eight characters, which stand in the key as well; for logs and people."""
    hash: str
    """SHA-256 of the whole key, in hexadecimal."""
    scopes: tuple[Scope, ...]
    created: float
    """Seconds since 1970, as the other times are."""
    name: str = ""
    """For people."""
    expires: float | None = None
    revoked: float | None = None
    previous_hash: str = ""
    """Of the key that this one was rotated from."""
    previous_until: float = 0.0
    """Until when that one is taken too."""
    owner: str = ""
    """The principal it acts for, where that is another key's: both have the same streams and threads."""
    limits: dict[str, Any] = {}
    """By the names that limits have; nothing is known of them here."""

    @property
    def principal_id(self) -> str:
        return self.owner or f"key_{self.id}"

    def state(self, now: float) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"


class KeyStore(Protocol):
    """Methods block the calling greenlet only. Any may raise `StoreUnavailable`, ``swap`` `StoreFull`."""

    def find(self, key_id: str) -> Key | None: ...

    def find_several(self, key_ids: Collection[str]) -> dict[str, Key]:
        """Return those of them that there are, by their ids, with one question to the store."""
        ...

    def all(self) -> list[Key]:
        """Return every key, the revoked and expired ones too, the oldest first."""
        ...

    def swap(self, before: Key | None, after: Key) -> bool:
        """Put ``after`` in the place of ``before``, or at a free place for ``None``; both have one id.

        Answers whether it did: not if the key is not, or no longer, as ``before``.
        """
        ...

    def close(self) -> None: ...


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Key).decode
