"""A running service answers as it is described, whoever asks whatever: few requests here, thousands by hand.

``python -m tests.fuzz_api --cases 1000`` is the same for as long as one likes.
"""

import re
import time
from pathlib import Path

import pytest

from tests.fuzz_api import report
from tests.fuzz_api_asking import Fuzzer
from tests.fuzz_api_callers import Caller, demo_service, make_key

CASES = 4
FEWEST = 2
BUDGET_SECONDS = 40.0
"""After which the operations that are left get the fewest cases: the machine is busy."""
FORMS = r"/(stop|rename|delete|sign-in|sign-out|usage)?$"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("who", "only", "most"),
    [("open", "", CASES), ("nobody", "^(DELETE|PATCH|POST)", FEWEST), ("session", FORMS, CASES)],
    ids=["anybody", "nobody where a key is needed", "a session of the page"],
)
def test_every_operation_answers_as_it_is_described(tmp_path: Path, who: str, only: str, most: int) -> None:
    with demo_service(tmp_path, who) as service:
        key = "" if who == "open" else make_key(tmp_path)
        fuzzer, began = Fuzzer(Caller(who, service.url, key), most), time.monotonic()
        tried = []
        for operation in fuzzer.operations:
            cases = most if time.monotonic() - began < BUDGET_SECONDS else FEWEST
            if re.search(only, operation.label):
                tried.append(fuzzer.try_operation(operation, cases))
        log = service.log_text()

    faults = [
        f"{report(each)}\n{finding.what} {finding.example}" for each in tried for finding in each.findings
    ]
    assert not faults, "\n\n".join(faults)
    assert [each.operation for each in tried if not each.cases] == []
    assert sum(each.cases for each in tried) >= FEWEST * len(tried) > 0
    assert "a request broke" not in log
