"""A program as in a container: another account without rights, on a file system that cannot be written.

Made with ``unshare`` and ``setpriv``, which needs root. The network and the
process ids are this machine's.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ACCOUNT = 10001
# A mount of its own stays writable when the one around it is made read-only.
_SCRIPT = """
set -e
for kept in "$DATA" "$TMP"; do mount --bind "$kept" "$kept"; done
for each in $(findmnt --noheadings --list --output TARGET --types ext4,xfs,btrfs,overlay,tmpfs,zfs); do
    case "$each" in "$DATA"|"$TMP"|/dev|/dev/*|/proc|/proc/*|/sys|/sys/*) ;;
    *) mount -o remount,bind,ro "$each" || exit 96 ;; esac
done
if touch "$APP/written" 2>/dev/null; then exit 97; fi
cd "$APP"
exec setpriv --reuid=%(account)d --regid=%(account)d --clear-groups --no-new-privs --bounding-set=-all \
    --inh-caps=-all -- "$@"
"""


def missing() -> str:
    """Return why there can be no sandbox here; empty if there can."""
    if os.geteuid() != 0:
        return "it takes root to become another account"
    if absent := [name for name in ("unshare", "setpriv", "findmnt") if not shutil.which(name)]:
        return f"{absent[0]} is not installed"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this container may not unshare its mounts"
    return "" if interpreter() else "no interpreter of this version can be run by another account"


def interpreter() -> str:
    """Return this version's interpreter that another account can run, empty if there is none."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (os.path.realpath(sys.executable), f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        as_other = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", path, "-c", ""]
        if os.path.exists(path) and not subprocess.run(as_other, capture_output=True, check=False).returncode:
            return path
    return ""


class Sandbox:
    """Runs programs in ``app``, which they can read, with ``data`` to write in, until the block is left.

    Its folder is not one of pytest's: those are shut to other accounts, again at each start of any pytest.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="sluice-sandbox-"))
        folder.chmod(0o755)
        self._folder = folder
        self.app, self.data, self._tmp = folder / "app", folder / "data", folder / "tmp"
        self.log_file = folder / "log"
        for each in (self.app, self.data, self._tmp):
            each.mkdir()
        for each in (self.data, self._tmp):
            os.chown(each, ACCOUNT, ACCOUNT)
            each.chmod(0o700)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)

    def start(self, words: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a program in a session of its own; its process is the program's own."""
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _SCRIPT % {"account": ACCOUNT}, "sandbox", *words],
                env=dict(variables)
                | {"APP": str(self.app), "DATA": str(self.data), "TMP": str(self._tmp)}
                | {"TMPDIR": str(self._tmp)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> int:
        """Return the exit status of a program, once it has ended."""
        return self.start(words, variables).wait(timeout=60)

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a program and what it started, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
