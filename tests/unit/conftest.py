"""What the tests of single parts share: a log in memory and what produces into it."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streaming.audience import Audience
from streaming.eventlogs.memory import MemoryLog
from streaming.producer import Limits, Producers
from tests.doubles import UnsteadyLog
from tests.model_double import ModelDouble

# The examples make their models when they are imported, by the environment: those need not take their time.
os.environ.setdefault("DEMO_TOKENS_PER_SECOND", "0")
LIMITS = Limits(
    streams=20, bytes=1_000_000, events=10_000, seconds=60.0, grace_seconds=60.0, lease_seconds=10.0
)
MakeProducers = Callable[..., Producers]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def unsteady_log() -> UnsteadyLog:
    return UnsteadyLog()


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def make_producers(log: MemoryLog, audience: Audience) -> Iterator[MakeProducers]:
    """Return workers; by default on the log and with the audience of the test."""
    made: list[Producers] = []

    def make(limits: Limits = LIMITS, on: MemoryLog = log, heard_by: Audience | None = None) -> Producers:
        made.append(Producers(on, heard_by or audience, limits))
        return made[-1]

    yield make
    for log_ in {id(producers._log): producers._log for producers in made}.values():
        if isinstance(log_, UnsteadyLog):
            log_.broken.clear()
    for producers in made:
        producers.shutdown(0)
        producers.close()


@pytest.fixture
def producers(make_producers: MakeProducers) -> Producers:
    return make_producers()


@pytest.fixture
def model() -> Iterator[Callable[..., ModelDouble]]:
    """Return model servers that follow scripts."""
    made: list[ModelDouble] = []

    def make(*scripts: Any, **options: Any) -> ModelDouble:
        made.append(ModelDouble(*scripts, **options))
        return made[-1]

    yield make
    for double in made:
        double.close()
