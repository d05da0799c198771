"""Keys: known while they are good, by whoever has the whole of one."""

import time
from collections.abc import Callable

import pytest

from streaming import keyring as module
from streaming.errors import InvalidRequest, NotAuthenticated, NotFound, SettingsError
from streaming.keyring import Issued, Keyring, entry_of, make, read_entries
from streaming.keys import Key
from streaming.keys.memory import MemoryKeys


class CountingKeys(MemoryKeys):
    """Counts how often it is asked."""

    asked = 0

    def find(self, key_id: str) -> Key | None:
        self.asked += 1
        return super().find(key_id)


@pytest.fixture
def store() -> CountingKeys:
    return CountingKeys()


@pytest.fixture
def keyring(store: CountingKeys) -> Keyring:
    return Keyring(store)


def refused(check: Callable[[], object]) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        check()
    return caught.value.code


def test_a_key_is_known_by_its_text(keyring: Keyring) -> None:
    issued = keyring.issue(["read", "run"], "laptop", limits={"runs": 3})

    principal = keyring.principal_of(keyring.check(issued.text))

    assert principal.id == f"key_{issued.key.id}"
    assert principal.kind == "key"
    assert principal.scopes == {"read", "run"}
    assert principal.limits == {"runs": 3}


def test_a_key_looks_as_the_docs_say(keyring: Keyring) -> None:
    texts = {keyring.issue(["run"]).text for _ in range(100)}
    assert len(texts) == 100
    assert all(len(text) == len("sk-sluice-") + 8 + 1 + 43 for text in texts)


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text[:-1],
        lambda text: text + "a",
        lambda text: text + "\n",
        lambda text: text.replace("sluice", "SLUICE"),
        lambda text: text.rpartition("-")[0] + "-",
        lambda text: f"sk-sluice-zzzzzzzz-{text.rpartition('-')[2]}",
        lambda text: "",
        lambda text: "sk-" + "é" * 50,
        lambda text: text.rpartition("-")[2],
    ],
)
def test_anything_else_is_no_key(keyring: Keyring, harm: Callable[[str], str]) -> None:
    issued = keyring.issue(["run"])
    assert refused(lambda: keyring.check(harm(issued.text))) == "invalid_key"


def test_a_key_expires(keyring: Keyring) -> None:
    issued = keyring.issue(["run"], expires=time.time() + 0.2)
    keyring.check(issued.text)

    while time.time() < (issued.key.expires or 0):
        time.sleep(0.01)

    assert refused(lambda: keyring.check(issued.text)) == "key_expired"
    assert keyring.find(issued.key.id) is None


def test_only_who_has_a_key_hears_that_it_was_revoked(keyring: Keyring) -> None:
    issued = keyring.issue(["run"])
    keyring.revoke(issued.key.id)

    assert refused(lambda: keyring.check(issued.text)) == "key_revoked"
    assert refused(lambda: keyring.check(make(["run"]).text)) == "invalid_key"
    assert refused(lambda: keyring.check(f"sk-sluice-{issued.key.id}-{'a' * 43}")) == "invalid_key"
    assert keyring.find(issued.key.id) is None


def test_after_a_rotation_both_are_taken_until_the_grace_is_over(keyring: Keyring) -> None:
    old = keyring.issue(["run"], "laptop")
    new = keyring.rotate(old.key.id, 0.3)

    assert keyring.check(old.text).principal_id == keyring.check(new.text).principal_id

    until = keyring.check(new.text).previous_until
    while time.time() < until:
        time.sleep(0.01)
    assert refused(lambda: keyring.check(old.text)) == "invalid_key"
    keyring.check(new.text)


def test_a_rotation_without_grace_ends_the_old_key_at_once(keyring: Keyring) -> None:
    old = keyring.issue(["run"])
    keyring.rotate(old.key.id, 0)
    assert refused(lambda: keyring.check(old.text)) == "invalid_key"


def test_a_revoked_key_takes_the_one_before_it_along_and_is_not_rotated(keyring: Keyring) -> None:
    old = keyring.issue(["run"])
    new = keyring.rotate(old.key.id, 3600)
    keyring.revoke(old.key.id)

    assert refused(lambda: keyring.check(old.text)) == "invalid_key"
    assert refused(lambda: keyring.check(new.text)) == "key_revoked"
    with pytest.raises(InvalidRequest, match="revoked"):
        keyring.rotate(old.key.id, 0)


def test_what_is_not_there_is_not_revoked(keyring: Keyring) -> None:
    with pytest.raises(NotFound):
        keyring.revoke("zzzzzzzz")


def test_the_store_is_asked_once_in_a_while(keyring: Keyring, store: CountingKeys) -> None:
    issued, unknown = keyring.issue(["run"]), make(["run"])
    for _ in range(100):
        keyring.check(issued.text)
        refused(lambda: keyring.check(unknown.text))

    assert store.asked == 2


def test_what_another_worker_changed_is_known_soon(
    keyring: Keyring, store: CountingKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = keyring.issue(["run"])
    keyring.check(issued.text)
    Keyring(store).revoke(issued.key.id)

    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)

    assert refused(lambda: keyring.check(issued.text)) == "key_revoked"


def test_who_looks_again_sees_keys_as_they_are_now_and_so_does_everybody_after(
    keyring: Keyring, store: CountingKeys
) -> None:
    issued, unknown = keyring.issue(["run"]), make(["run"])
    keyring.check(issued.text)
    Keyring(store).revoke(issued.key.id)
    keyring.check(issued.text)  # it is remembered

    found = keyring.look_again({issued.key.id, unknown.key.id})

    assert [each.state(time.time()) for each in found.values()] == ["revoked"]
    assert refused(lambda: keyring.check(issued.text)) == "key_revoked"


def test_keys_of_the_setting_are_looked_at_without_the_store() -> None:
    issued = make(["run"])
    assert fixed(issued).look_again([issued.key.id]) == {issued.key.id: issued.key}


def test_guesses_do_not_fill_the_memory(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 50)
    for _ in range(200):
        refused(lambda: keyring.check(make(["run"]).text))
    assert len(keyring._remembered) == 50


def test_a_key_may_share_what_another_one_has(keyring: Keyring) -> None:
    writer = keyring.issue(["run"])
    reader = keyring.issue(["read"], owner=f"key_{writer.key.id}")

    principal = keyring.principal_of(keyring.check(reader.text))

    assert principal.id == f"key_{writer.key.id}"
    assert principal.may("read")
    assert not principal.may("run")


# The setting


def fixed(*issued: Issued) -> Keyring:
    return Keyring(MemoryKeys(), read_entries([entry_of(each.key) for each in issued]))


def test_a_key_of_the_setting_is_known_and_cannot_be_changed() -> None:
    issued = make(["run", "admin"], "ops", limits={"models": ["a"]})
    keyring = fixed(issued)

    assert keyring.check(issued.text) == issued.key
    assert keyring.all() == [issued.key]
    with pytest.raises(InvalidRequest, match="API_KEYS"):
        keyring.revoke(issued.key.id)


def test_the_setting_does_not_hold_the_key() -> None:
    issued = make(["run"])
    assert issued.text.rpartition("-")[2] not in entry_of(issued.key)


@pytest.mark.parametrize(
    "entry", ["", "x", "4f2a9c01.", "4f2a9c01.e30", "4f2a9c01.!!", "sk-sluice-4f2a9c01-abc", "a" * 9999]
)
def test_an_entry_that_is_none_is_refused_without_repeating_it(entry: str) -> None:
    good = entry_of(make(["run"]).key)
    with pytest.raises(SettingsError, match="API_KEYS: entry 2") as caught:
        read_entries([good, entry])
    assert not entry or entry not in str(caught.value).replace("entry", "")


def test_an_entry_under_another_id_or_twice_is_refused() -> None:
    entry = entry_of(make(["run"]).key)
    with pytest.raises(SettingsError, match="entry 1"):
        read_entries([f"zzzzzzzz.{entry.partition('.')[2]}"])
    with pytest.raises(SettingsError, match="twice"):
        read_entries([entry, entry])
