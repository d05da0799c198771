"""``python -m streaming keys``: the key on stdout, once; everything else on stderr."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.keyring import hash_of, read_entries

KEY = re.compile(r"sk-sluice-([0-9a-z]{8})-[0-9A-Za-z]{43}")


def keys(store: Path, *arguments: str, code: int = 0, **environ: str) -> tuple[str, str]:
    variables = os.environ | {"EVENTLOG_URL": f"sqlite:///{store}", "RUNNABLES": "none"} | environ
    done = subprocess.run(
        [sys.executable, "-m", "streaming", "keys", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_key_is_made_listed_rotated_and_revoked(tmp_path: Path) -> None:
    store = tmp_path / "streams.db"
    made, said = keys(store, "create", "--name", "Ana", "--scopes", "read,run", "--expires", "90d")
    match = KEY.fullmatch(made.strip())
    assert match
    key_id = match[1]
    assert made.strip() not in said

    rotated, _ = keys(store, "rotate", key_id, "--grace", "0")
    assert KEY.fullmatch(rotated.strip())
    assert rotated != made

    keys(store, "revoke", key_id)
    listed, _ = keys(store, "list")
    assert re.search(rf"^{key_id} +Ana +run,read +\S+ +\S+ +revoked$", listed, re.M), listed
    assert not KEY.search(listed)
    for path in tmp_path.iterdir():
        for text in (made, rotated):
            assert text.strip().encode() not in path.read_bytes(), f"{path} holds a key"


def test_a_key_for_the_setting_is_kept_nowhere(tmp_path: Path) -> None:
    store = tmp_path / "streams.db"
    made, said = keys(store, "create", "--as-setting", "--limit", "running=3", "--limit", "models=a,b")

    (key,) = read_entries(re.findall(r"^[0-9a-z]{8}\.\S+$", said, re.M))
    assert key.hash == hash_of(made.strip())
    assert key.limits == {"running": 3, "models": ["a", "b"]}
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["create", "--scopes", "run,fly"], "fly"),
        (["create", "--expires", "2001-01-01"], "future"),
        (["create", "--expires", "soon"], "soon"),
        (["create", "--limit", "runs"], "NAME=VALUE"),
        (["create", "--limit", "running=-1"], "from 0"),
        (["create", "--limit", "runs=1"], "unknown field"),
        (["create", "--limit", "running=2.5"], "running"),
        (["create", "--limit", "running=many"], "running"),
        (["revoke", "sk"], "8 of"),
        (["make"], "make"),
        ([], "required"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_names_what_is_wrong(
    tmp_path: Path, arguments: list[str], names: str
) -> None:
    printed, said = keys(tmp_path / "streams.db", *arguments, code=2)
    assert names in said
    assert not printed
    assert not (tmp_path / "streams.db").exists()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    assert "no key 'zzzzzzzz'" in keys(tmp_path / "s.db", "revoke", "zzzzzzzz", code=1)[1]
    assert "API_KEYS" in keys(tmp_path / "s.db", "create", code=1, EVENTLOG_URL="memory://")[1]
