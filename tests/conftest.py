"""What all tests share: no clock in Hypothesis, Ctrl-C, and at the end a search in the services' logs."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.log_scan import SCAN, report

# How long an example takes to make or to try says something about this machine, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _no_key_and_no_prompt_in_any_log() -> Iterator[None]:
    # The first fixture of a session ends last: its services have stopped.
    yield
    hits = SCAN.hits()
    assert not hits, report(hits)


@pytest.fixture(scope="session", autouse=True)
def _heeded_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and hands that on to what it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
