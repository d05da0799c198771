"""A run: its rounds, its rows as they come, and what is concluded and kept."""

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bench import machine, plots, regression, report, startup
from bench._processes import NotStarted
from bench.measure import Row, Unmeasured, measure
from bench.plans import Plan
from bench.targets import Target, targets


class Bench:
    def __init__(
        self,
        plan: Plan,
        plan_name: str,
        environment: Mapping[str, str],
        beside: Mapping[str, Path],
        only_targets: set[str],
        only_scenarios: set[str],
        out: Path,
    ) -> None:
        self.rows: list[Row] = []
        self.unmeasured: dict[str, Unmeasured] = {}
        self.starts: list[startup.Start] = []
        self._plan = plan
        self._plan_name = plan_name
        self._environment = environment
        self._out = out
        self._run = machine.this_run()
        # Before anything is measured: a mistake in the file is told at once.
        self._expected = regression.read_expected()
        self._targets = targets(environment, beside)
        self._service = {name for name, target in self._targets.items() if target.is_service}
        self._pairs = {
            label: kept
            for name, scenarios in plan.pairs.items()
            for label in _with_those_beside(self._targets, name)
            if not only_targets or name in only_targets
            if (kept := [each for each in scenarios if not only_scenarios or each.name in only_scenarios])
        }

    def measure(self) -> None:
        """Measure all, row by row. What was measured until an exception is kept."""
        here = self._run.machine
        print(f"{here.cpu}, {here.cores} cores, Linux {here.kernel}, Python {here.python}")
        print(f"Commit {self._run.commit[:7]}{', with changes' if self._run.dirty else ''}")
        if here.pinned.server is None:
            print("Only one core: server and rig share it, and latencies mean little.")
        if here.load_average > 0.5:
            busy = f"The machine is busy (load {here.load_average:.1f})"
            print(f"{busy}: look at ratios only, or come back later.")
        if self._pairs:
            report.print_head()
        for number in range(1, self._plan.rounds + 1):
            # There and back, so that a machine that slows down is not held against the same target each time.
            order = list(self._pairs) if number % 2 else list(reversed(self._pairs))
            for name in order:
                self._measure_target(name, number)
        if self._plan.start_up:
            self._measure_starts()

    def _measure_target(self, name: str, number: int) -> None:
        if name in self.unmeasured:
            return
        for found in measure(self._targets[name], self._pairs[name], number):
            if isinstance(found, Row):
                self.rows.append(found)
                report.print_row(found)
            else:
                self.unmeasured[name] = found
                report.print_unmeasured(found)

    def _measure_starts(self) -> None:
        try:
            self.starts = startup.starts(self._environment)
        except NotStarted as error:
            self.unmeasured["start-up"] = Unmeasured(target="start-up", reason=str(error))
            report.print_unmeasured(self.unmeasured["start-up"])

    def conclude(self, interrupted: bool = False) -> bool:
        """Print the summary, write the results, and say whether something is worse than expected."""
        if any(row.round > 1 for row in self.rows):
            report.print_summary(self.rows)
        if self.starts:
            report.print_starts(self.starts)
        verdicts = regression.check(self.rows, self._expected, self._service)
        for found in self.unmeasured.values():
            if not found.missing:
                verdicts.append(
                    regression.Verdict(f"{found.target} can be measured", "worse", why=found.reason)
                )
        if verdicts:
            print("\nRatios, within each round (bench/expected.toml)")
        for verdict in verdicts:
            print(f"  {verdict}")
        if self.rows or self.starts:
            self._keep(verdicts, interrupted)
        sys.stdout.flush()
        return any(verdict.outcome == "worse" for verdict in verdicts)

    def _keep(self, verdicts: list[regression.Verdict], interrupted: bool) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        kept = self._out / f"{self._run.name}-{self._plan_name.replace(' ', '+')}.json"
        scenarios = {each.name: each for asked in self._pairs.values() for each in asked}
        used = {row.scenario for row in self.rows}
        found = {
            "run": self._run,
            "plan": self._plan_name,
            "settings": self._environment,
            "interrupted": interrupted,
            "targets": {name: self._targets[name].about for name in self._pairs},
            "scenarios": [each for name, each in scenarios.items() if name in used],
            "rows": self.rows,
            "unmeasured": list(self.unmeasured.values()),
            "start_up": self.starts,
            "verdicts": verdicts,
        }
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        print(f"\n{kept}")
        if self.rows:
            plot = kept.with_suffix(".svg")
            plot.write_text(plots.draw(self.rows, scenarios, f"Sluice, {self._run.name}"))
            print(plot)


def _with_those_beside(known: Mapping[str, Target], name: str) -> list[str]:
    return [label for label in known if label.partition("@")[0] == name]
