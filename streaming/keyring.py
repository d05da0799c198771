"""The verbs of keys: make one, know one, rotate and revoke it.

A key is ``sk-sluice-<id>-<secret>``: the id finds it, the hash of the whole
proves it. What a worker has looked up it remembers for `FRESH_SECONDS`, so a
change is known everywhere after that.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from streaming.errors import InvalidRequest, NotAuthenticated, NotFound, SettingsError
from streaming.keys import Key, KeyStore
from streaming.principals import Principal, Scope

FRESH_SECONDS = 3.0
MOST_REMEMBERED = 10_000
ATTEMPTS = 5
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(r"sk-sluice-([0-9a-z]{8})-[0-9A-Za-z]{43}")
_ENTRY = re.compile(r"[0-9a-z]{8}\.([A-Za-z0-9_-]+)")
_HASHES = re.compile(r"[0-9a-f]{64}( [0-9a-f]{64})?")
# Compared with where there is no such key, so that its absence takes as long as a wrong secret.
_NO_HASH = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class Issued(NamedTuple):
    text: str
    """The key. It is nowhere else, and cannot be shown again."""
    key: Key


class Keyring:
    """The keys of a store, and those of the setting ``API_KEYS``, which are not to be changed."""

    def __init__(self, store: KeyStore, fixed: Iterable[Key] = ()) -> None:
        self._store = store
        self._fixed = {key.id: key for key in fixed}
        self._remembered: OrderedDict[str, tuple[float, Key | None]] = OrderedDict()

    def check(self, text: str) -> Key:
        """Return the key that this is. Raises `NotAuthenticated`, and `StoreUnavailable`."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise _invalid()
        key, now = self.look_up(match[1]), time.time()
        given = hash_of(text)
        is_it = hmac.compare_digest(given, key.hash if key else _NO_HASH)
        was_it = hmac.compare_digest(given, (key and key.previous_hash) or _NO_HASH)
        if key is None or not (is_it or (was_it and now < key.previous_until)):
            raise _invalid()
        if (state := key.state(now)) != "active":
            said = {"revoked": "this key was revoked", "expired": "this key has expired"}[state]
            raise NotAuthenticated(said, code=f"key_{state}")
        return key

    def find(self, key_id: str) -> Key | None:
        """Return the key with this id if it is active, or was at most `FRESH_SECONDS` ago."""
        key = self.look_up(key_id)
        return key if key is not None and key.state(time.time()) == "active" else None

    def look_up(self, key_id: str) -> Key | None:
        """Return the key with this id, whatever its state, as it was at most `FRESH_SECONDS` ago."""
        if fixed := self._fixed.get(key_id):
            return fixed
        at, key = self._remembered.get(key_id, (float("-inf"), None))
        if time.monotonic() - at > FRESH_SECONDS:
            key = self._store.find(key_id)
            self._remember(key_id, key)
        return key

    def look_again(self, key_ids: Collection[str]) -> dict[str, Key]:
        """Return those of them that there are, as they are now. Asks the store once."""
        kept = [key_id for key_id in key_ids if key_id not in self._fixed]
        found = self._store.find_several(kept) if kept else {}
        for key_id in kept:
            self._remember(key_id, found.get(key_id))
        return found | {key_id: self._fixed[key_id] for key_id in key_ids if key_id in self._fixed}

    def all(self) -> list[Key]:
        """Return those of the setting, then those of the store, the oldest first."""
        return [*self._fixed.values(), *self._store.all()]

    def principal_of(self, key: Key) -> Principal:
        return Principal(key.principal_id, "key", frozenset(key.scopes), key.name, key.limits)

    def issue(
        self,
        scopes: Sequence[Scope],
        name: str = "",
        expires: float | None = None,
        owner: str = "",
        limits: Mapping[str, Any] | None = None,
    ) -> Issued:
        """Make a key and keep it."""
        while True:
            issued = make(scopes, name, expires, owner, limits)
            if self._store.swap(None, issued.key):
                return issued

    def revoke(self, key_id: str) -> Key:
        """Let nobody in with it any more, nor with the one before it. Raises `NotFound`."""
        return self._change(key_id, revoked=time.time(), previous_hash="", previous_until=0.0)

    def rotate(self, key_id: str, grace_seconds: float) -> Issued:
        """Make a new key for the same principal; the old one is taken for ``grace_seconds`` more.

        Raises `NotFound`, and `InvalidRequest` for one that is not active.
        """
        text = _text(key_id)
        before = self._held(key_id)
        if before.state(time.time()) != "active":
            raise InvalidRequest(
                f"{key_id} is {before.state(time.time())}: make a new one", code="not_active"
            )
        after = self._change(
            key_id,
            hash=hash_of(text),
            previous_hash=before.hash if grace_seconds else "",
            previous_until=time.time() + grace_seconds if grace_seconds else 0.0,
        )
        return Issued(text, after)

    def close(self) -> None:
        self._store.close()

    def _remember(self, key_id: str, key: Key | None) -> None:
        self._remembered[key_id] = time.monotonic(), key
        self._remembered.move_to_end(key_id)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _change(self, key_id: str, **changed: Any) -> Key:
        for _ in range(ATTEMPTS):
            before = self._held(key_id)
            after = replace(before, **changed)
            if self._store.swap(before, after):
                self._remembered.pop(key_id, None)
                return after
        raise InvalidRequest(f"{key_id} is being changed by somebody else", code="busy", status=409)

    def _held(self, key_id: str) -> Key:
        if key_id in self._fixed:
            raise InvalidRequest(f"{key_id} is in API_KEYS: take it out there, and restart", code="fixed")
        key = self._store.find(key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id[:20]!r}")
        return key


def make(
    scopes: Sequence[Scope],
    name: str = "",
    expires: float | None = None,
    owner: str = "",
    limits: Mapping[str, Any] | None = None,
) -> Issued:
    """Make a key without keeping it."""
    key_id = "".join(secrets.choice(_ID_DIGITS) for _ in range(8))
    text = _text(key_id)
    key = Key(
        key_id,
        hash_of(text),
        tuple(scopes),
        time.time(),
        name,
        expires,
        owner=owner,
        limits=dict(limits or {}),
    )
    return Issued(text, key)


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_of(key_hash: str) -> str:
    """Return what tells a key's hash from another, and does not tell the hash."""
    return hashlib.sha256(b"session of " + key_hash.encode()).hexdigest()[:32]


def is_taken(key: Key, fingerprint: str, now: float) -> bool:
    """Say whether the fingerprint is of this key, or of the one before it while that is taken too."""
    hashes = [key.hash, *([key.previous_hash] if now < key.previous_until else [])]
    return any(hmac.compare_digest(fingerprint, fingerprint_of(each)) for each in hashes)


def id_in(text: str) -> str:
    """Return the id of a key that is well-formed, be it one or not; "" for anything else.

    >>> id_in("sk-sluice-4f2a9c01-" + "a" * 43), id_in("hunter2")
    ('4f2a9c01', '')
    """
    match = _KEY.fullmatch(text)
    return match[1] if match else ""


def entry_of(key: Key) -> str:
    """Return a key as an entry of ``API_KEYS``, which holds its hash and not the key."""
    return f"{key.id}.{base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip('=')}"


def read_entries(entries: Iterable[str]) -> list[Key]:
    """Read ``API_KEYS``. Raises `SettingsError` with the place of the wrong one, and not the entry."""
    found: list[Key] = []
    for place, entry in enumerate(entries, 1):
        match = _ENTRY.fullmatch(entry)
        try:
            body = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)) if match else b""
            key = msgspec.json.decode(body, type=Key)
        except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            match = None
        if match is None or not entry.startswith(f"{key.id}.") or not _HASHES.fullmatch(_hashes_of(key)):
            raise SettingsError(
                f"API_KEYS: entry {place} is not one of `python -m streaming keys create --as-setting`"
            )
        found.append(key)
    if len({key.id for key in found}) < len(found):
        raise SettingsError("API_KEYS: one key is there twice")
    return found


def _hashes_of(key: Key) -> str:
    return f"{key.hash} {key.previous_hash}".removesuffix(" ")


def _text(key_id: str) -> str:
    # 43 characters of 62 hold 256 bits.
    return f"sk-sluice-{key_id}-" + "".join(secrets.choice(_DIGITS) for _ in range(43))


def _invalid() -> NotAuthenticated:
    return NotAuthenticated("this is not a key of this service", code="invalid_key")
