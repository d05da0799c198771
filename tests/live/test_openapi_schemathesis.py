"""A running service answers as it is described, whatever it is asked: few requests here, thousands by hand.

``python -m tests.fuzz_api --cases 1000`` is the same for as long as one likes.
"""

import time
from collections.abc import Iterator

import pytest

from tests.fuzz_api import report
from tests.fuzz_api_asking import Fuzzer
from tests.fuzz_api_callers import Caller, demo_service
from tests.live.service import Service

CASES = 4
FEWEST = 2
BUDGET_SECONDS = 40.0
"""After which the operations that are left get the fewest cases: the machine is busy."""

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with demo_service(tmp_path_factory.mktemp("fuzzed")) as service:
        yield service


def test_every_operation_answers_as_it_is_described(fuzzed: Service) -> None:
    fuzzer, began = Fuzzer(Caller("open", fuzzed.url), CASES), time.monotonic()
    tried = []
    for operation in fuzzer.operations:
        cases = CASES if time.monotonic() - began < BUDGET_SECONDS else FEWEST
        tried.append(fuzzer.try_operation(operation, cases))

    faults = [
        f"{report(each)}\n{finding.what} {finding.example}" for each in tried for finding in each.findings
    ]
    assert not faults, "\n\n".join(faults)
    assert [each.operation for each in tried if not each.cases] == []
    assert sum(each.cases for each in tried) >= FEWEST * len(tried)
    assert "a request broke" not in fuzzed.log_text()
