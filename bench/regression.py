"""The check that fails a run: ratios of costs, never costs; a slow machine is slow for both sides."""

import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from bench.measure import OTHERS_LIMIT, Row

EXPECTED = Path(__file__).with_name("expected.toml")


class Expected(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``target`` costs by what another costs, under the same load, or by what it costs under another."""

    what: str
    target: str
    scenario: str
    to_target: str = ""
    to_scenario: str = ""
    value: Literal[
        "cpu_us_per_chunk",
        "cpu_us_per_request",
        "store_cpu_us_per_chunk",
        "kib_per_stream",
        "wall_us_per_chunk",
    ]
    expected: float
    tolerance: float
    """The part by which a ratio may be above what is expected."""
    aim: float | None = None
    """What it should become; shown only."""

    @property
    def at_most(self) -> float:
        return self.expected * (1 + self.tolerance)


class Verdict(Struct, frozen=True, omit_defaults=True):
    what: str
    outcome: Literal["ok", "worse", "not judged"]
    ratio: float | None = None
    at_most: float | None = None
    aim: float | None = None
    why: str = ""

    def __str__(self) -> str:
        line = f"{self.outcome.upper() if self.outcome == 'worse' else self.outcome:10}  {self.what}"
        if self.ratio is not None:
            line += f": {self.ratio:.2f}, at most {self.at_most:.2f}"
        if self.aim is not None:
            line += f", aim {self.aim:g}"
        return f"{line}  {self.why}".rstrip()


class _File(Struct, forbid_unknown_fields=True):
    ratio: list[Expected]


def read_expected(path: Path = EXPECTED) -> list[Expected]:
    """Raises `msgspec.ValidationError`, which names the place in the file."""
    return msgspec.convert(tomllib.loads(path.read_text()), _File).ratio


def check(rows: Sequence[Row], expected: Sequence[Expected], service: set[str]) -> list[Verdict]:
    """Judge each ratio that was measured, and that no stream of the ``service``'s targets failed."""
    verdicts = [verdict for each in expected if (verdict := _judge(rows, each))]
    if ours := [row for row in rows if row.target in service]:
        failed = {f"{row.target} in {row.scenario}": row.failed for row in ours if row.failed}
        why = ", ".join(f"{count} of {name}" for name, count in failed.items())
        verdicts.append(Verdict("no stream fails", "worse" if failed else "ok", why=why))
    return verdicts


def _judge(rows: Sequence[Row], expected: Expected) -> Verdict | None:
    above = _by_round(rows, expected.target, expected.scenario)
    below = _by_round(rows, expected.to_target or expected.target, expected.to_scenario or expected.scenario)
    # Within a round, so that a machine that grows slower does not move a ratio.
    pairs = [(above[number], below[number]) for number in above if number in below]
    if not pairs:
        return None
    if expected.value != "wall_us_per_chunk":
        # Who falls behind is served in bunches, which cost less.
        held = [pair for pair in pairs if all(row.held for row in pair)]
        if not held:
            behind = sorted({row.target for pair in pairs for row in pair if not row.held})
            return Verdict(
                expected.what, "not judged", aim=expected.aim, why=f"{' and '.join(behind)} did not hold"
            )
        pairs = held
    elif any(row.others_share > OTHERS_LIMIT for pair in pairs for row in pair):
        # Costs are counted for each process, but nobody keeps a pace on a core that others use.
        return Verdict(expected.what, "not judged", aim=expected.aim, why="the machine was busy")
    ratios = [
        float(one) / float(other)
        for a, b in pairs
        if (one := getattr(a, expected.value)) is not None and (other := getattr(b, _other(expected)))
    ]
    if not ratios:
        return Verdict(
            expected.what, "not judged", aim=expected.aim, why="too little was spent to be measured"
        )
    ratio = statistics.median(ratios)
    if any(row.rig_was_limit for pair in pairs for row in pair):
        why = "the rig was the limit"
        return Verdict(expected.what, "not judged", ratio, expected.at_most, expected.aim, why)
    outcome: Literal["ok", "worse"] = "ok" if ratio <= expected.at_most else "worse"
    return Verdict(expected.what, outcome, ratio, expected.at_most, expected.aim)


def _other(expected: Expected) -> str:
    # A database's cost is judged by the whole cost of the other.
    return "cpu_us_per_chunk" if expected.value == "store_cpu_us_per_chunk" else expected.value


def _by_round(rows: Sequence[Row], target: str, scenario: str) -> dict[int, Row]:
    return {row.round: row for row in rows if (row.target, row.scenario) == (target, scenario)}
