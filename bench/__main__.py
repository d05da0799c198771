"""``python -m bench [PLAN …]``: measure, show, judge, and keep the results. See docs/performance.md."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
EXIT_WORSE = 1
EXIT_CANNOT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    if sys.platform != "linux":
        print("This benchmark reads /proc and pins processes to cores: it needs Linux.", file=sys.stderr)
        return EXIT_CANNOT
    # Not before: some of what these import exists on Linux only.
    from bench.plans import PLANS, chosen
    from bench.run import Bench

    parser = argparse.ArgumentParser(
        prog="make bench BENCH=…",
        description="Measure what the service costs, beside others, on this machine.",
        epilog="plans: " + "; ".join(f"{name}: {plan.about}" for name, plan in PLANS.items()),
    )
    parser.add_argument("plans", nargs="*", metavar="PLAN")
    parser.add_argument("--rounds", type=int, default=0, help="instead of the plan's own number")
    parser.add_argument("--targets", default="", help="only these, separated by commas")
    parser.add_argument("--scenarios", default="", help="only these, separated by commas")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another checkout, in the same rounds",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for the results")
    asked = parser.parse_args(arguments)
    names = asked.plans or ["quick"]
    if unknown := set(names) - {*PLANS, "all"}:
        parser.error(f"no plan is called {', '.join(sorted(unknown))}; there are {', '.join(PLANS)}, all")
    bench = Bench(
        plan=chosen(names, asked.rounds),
        plan_name=" ".join(names),
        environment=dict(_pairs(parser, asked.env)),
        beside={name: Path(folder).resolve() for name, folder in _pairs(parser, asked.beside)},
        only_targets=set(filter(None, asked.targets.split(","))),
        only_scenarios=set(filter(None, asked.scenarios.split(","))),
        out=asked.out,
    )
    # Told to end, it ends as at Ctrl-C: what it started is gone, what it measured is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bench.measure()
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        bench.conclude(interrupted=True)
        return EXIT_INTERRUPTED
    return EXIT_WORSE if bench.conclude() else 0


def _pairs(parser: argparse.ArgumentParser, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            parser.error(f"{each!r} is not NAME=VALUE")
        yield name, value


if __name__ == "__main__":
    sys.exit(main())
