"""Keys in this process's memory, beside a log that is there too: gone when it ends."""

from collections.abc import Collection

from streaming.keys import Key, KeyStore


class MemoryKeys:
    """See `KeyStore`."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def find_several(self, key_ids: Collection[str]) -> dict[str, Key]:
        return {key_id: self._keys[key_id] for key_id in key_ids if key_id in self._keys}

    def all(self) -> list[Key]:
        return sorted(self._keys.values(), key=lambda key: (key.created, key.id))

    def swap(self, before: Key | None, after: Key) -> bool:
        if self._keys.get(after.id) != before:
            return False
        self._keys[after.id] = after
        return True

    def close(self) -> None:
        self._keys.clear()


def create(log: object) -> KeyStore:
    return MemoryKeys()
