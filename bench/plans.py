"""Plans: which targets are measured under which scenarios, by the names that ``BENCH=`` takes."""

from collections.abc import Sequence

from msgspec import Struct

from bench.scenarios import (
    BURST,
    FAN_OUT,
    GROWTH,
    ONE,
    OPEN,
    OPEN_MANY,
    PACED,
    PACED_LESS,
    SHORT,
    SMOKE,
    SMOKE_SHORT,
    Scenario,
)


class Plan(Struct, frozen=True):
    about: str
    rounds: int = 0
    """How often each pair is measured, unless told otherwise."""
    pairs: dict[str, list[Scenario]] = {}
    """Target to its scenarios, in the order of the first round."""
    start_up: bool = False


_STREAMED = ("streams", "rate", "length")

PLANS: dict[str, Plan] = {
    "quick": Plan(
        "what most want to know, in about three minutes",
        2,
        {
            "nginx": [PACED, SHORT],
            "openai": [PACED, PACED_LESS, SHORT, OPEN],
            "native": [PACED],
            "naive-flask": [PACED_LESS, SHORT],
        },
    ),
    "smoke": Plan(
        "whether it works here, in some twenty seconds",
        1,
        {"nginx": [SMOKE], "openai": [SMOKE, SMOKE_SHORT], "naive-flask": [SMOKE]},
    ),
    "dialects": Plan(
        "each dialect, and as fast as it goes",
        3,
        {
            "nginx": [PACED, SHORT, BURST],
            **{name: [PACED, SHORT, BURST] for name in ("openai", "native", "simple")},
        },
    ),
    "stores": Plan(
        "each store",
        3,
        {
            "nginx": [PACED, SHORT],
            **{f"openai{store}": [PACED, SHORT] for store in ("", "-memory", "-redis")},
        },
    ),
    "naive": Plan(
        "the obvious code, also under a load it may not hold",
        2,
        {"openai": [PACED_LESS, SHORT], "naive-flask": [PACED_LESS, PACED, SHORT]},
    ),
    "langchain": Plan(
        "the LangChain source, and the obvious code with LangChain",
        2,
        {"langchain": [PACED_LESS, PACED, SHORT], "naive-langchain": [PACED_LESS, SHORT]},
    ),
    "fan-out": Plan(
        "one stream with 500 readers, by what nginx needs for 500 streams",
        3,
        {"nginx": [PACED], "native": [FAN_OUT]},
    ),
    "open": Plan(
        "2,000 and 5,000 open streams",
        2,
        {name: [OPEN, OPEN_MANY] for name in ("nginx", "openai")},
    ),
    "latency": Plan(
        "one stream on an idle server, and what the rig itself adds",
        3,
        {name: [ONE] for name in ("direct", "nginx", "openai", "native", "naive-flask")},
    ),
    "rig": Plan("the rig alone: its own cost and latency", 2, {"direct": [PACED, SHORT, ONE]}),
    "growth": Plan(
        "how the cost grows with streams, rate, length, readers and log",
        2,
        {
            "nginx": [point for series in _STREAMED for point in GROWTH[series]],
            "openai": [point for series in _STREAMED for point in GROWTH[series]],
            "native": [*GROWTH["readers"], *GROWTH["log"]],
        },
    ),
    "startup": Plan("start-up and idle memory", start_up=True),
}


def chosen(names: Sequence[str], rounds: int) -> Plan:
    """Return the named plans as one, ``all`` for all of them. Raises `KeyError` with an unknown name."""
    if "all" in names:
        names = [name for name in PLANS if name not in ("quick", "smoke", "rig")]
    plans = [PLANS[name] for name in names]
    pairs: dict[str, dict[str, Scenario]] = {}
    for plan in plans:
        for target, scenarios in plan.pairs.items():
            pairs.setdefault(target, {}).update({each.name: each for each in scenarios})
    return Plan(
        about="; ".join(plan.about for plan in plans),
        rounds=rounds or max(plan.rounds for plan in plans),
        pairs={target: list(found.values()) for target, found in pairs.items()},
        start_up=any(plan.start_up for plan in plans),
    )
