"""Ask a service whatever its description allows, and what it does not, and hold the answers against it.

``python -m tests.fuzz_api --cases 1000`` starts a service with the demo model and the examples, tries so many
requests for each operation, and prints a line for each; the whole result goes to ``--output`` as JSON.
``--as key``, ``session`` and ``nobody`` do it where a key is needed: with one that may all, with the session
of the page, and without any.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from tests.fuzz_api_asking import Fuzzer, Tried
from tests.fuzz_api_callers import CALLERS, Caller, demo_service, make_key

SHOWN_CHARS = 400


def report(tried: Tried) -> str:
    statuses = " ".join(f"{status}x{count}" for status, count in tried.statuses.items())
    return (
        f"{tried.operation:48} {tried.cases:5} in {tried.seconds:6.1f} s  {tried.events:6} events  {statuses}"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_api", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="for each operation (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations whose method and path match this")
    parser.add_argument("--without", default="^$", help="but not these")
    parser.add_argument("--as", dest="who", choices=CALLERS, default="open", help="who asks (open)")
    parser.add_argument(
        "--url", default="", help="of a service that runs, its key in SLUICE_KEY; left out: one is started"
    )
    parser.add_argument("--output", type=Path, default=Path("tests/artefacts/fuzz_api.json"))
    options = parser.parse_args(argv)
    if options.url:
        return _fuzz(options.url, os.environ.get("SLUICE_KEY", ""), options)
    with tempfile.TemporaryDirectory() as name, demo_service(Path(name), options.who) as service:
        key = "" if options.who == "open" else make_key(Path(name))
        code = _fuzz(service.url, key, options)
        broke = service.log_text().count("a request broke")
        print(f"{broke} times 'a request broke' in the log")
        if broke:
            print(service.log_text()[-4000:])
        return code or int(broke > 0)


def _fuzz(url: str, key: str, options: argparse.Namespace) -> int:
    fuzzer = Fuzzer(Caller(options.who, url, key), options.cases, options.seed)
    results: list[Tried] = []
    for operation in fuzzer.operations:
        if re.search(options.only, operation.label) and not re.search(options.without, operation.label):
            results.append(fuzzer.try_operation(operation))
            print(report(results[-1]), flush=True)
            for finding in results[-1].findings:
                print(
                    f"    {finding.status} {finding.what}\n      {finding.example[:SHOWN_CHARS]}", flush=True
                )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    told = [each._asdict() | {"findings": [one._asdict() for one in each.findings]} for each in results]
    options.output.write_text(json.dumps(told, indent=1))
    findings = sum(len(each.findings) for each in results)
    print(
        f"as {options.who}: {len(results)} operations, {sum(each.cases for each in results)} requests, "
        f"{sum(each.server_errors for each in results)} server errors, "
        f"{sum(each.described_failures for each in results)} described answers of 5xx, "
        f"{findings} kinds of findings"
    )
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
