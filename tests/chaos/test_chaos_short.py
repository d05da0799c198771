"""Short campaigns against the real service: no promise may be broken.

Each is what ``python -m tests.chaos.campaign`` does, smaller; see ``docs/reliability.md``.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.service import REPOSITORY

SHORT = {
    "kills": "--kills 25 --every-seconds 0.7 --streams 80 --at-once 24 --stall-ms 4000 --graphs 0.2",
    "restarts": "--restarts 4 --every-seconds 0.5 --streams 60 --at-once 16 --stall-ms 4000",
    "failovers": "--store redis --failovers 3 --every-seconds 0.5 --streams 40 --at-once 10 --stall-ms 2000"
    " --instances 2 --workers 1",
    "races": "--races 200",
    "duplicates": "--duplicates 100",
    "soak": "--minutes 0.8 --streams 20 --workers 2",
}


@pytest.mark.parametrize("name", SHORT)
def test_no_promise_is_broken(name: str, tmp_path: Path) -> None:
    campaign = [sys.executable, "-m", "tests.chaos.campaign", name, *SHORT[name].split(), "--seconds", "70"]
    ended = subprocess.run(
        [*campaign, "--out", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=115
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
