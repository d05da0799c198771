"""What all tests share: when they are over, the logs of the services they ran are searched."""

from collections.abc import Iterator

import pytest

from tests.log_scan import SCAN, report


@pytest.fixture(scope="session", autouse=True)
def _no_key_and_no_prompt_in_any_log() -> Iterator[None]:
    # The first fixture of a session ends last: its services have stopped.
    yield
    hits = SCAN.hits()
    assert not hits, report(hits)
