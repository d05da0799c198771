"""Draw from Hypothesis' strategies by plain chance: a case costs what the check costs, and not the thinking.

It knows the strategies that the fuzz tests use, by what they are made of inside
the pinned version of Hypothesis; of any other it raises ``TypeError``.
"""

import importlib
import inspect
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy
from hypothesis.strategies._internal.collections import (
    FixedDictStrategy,
    ListStrategy,
    TupleStrategy,
    UniqueListStrategy,
)
from hypothesis.strategies._internal.core import BuildsStrategy
from hypothesis.strategies._internal.lazy import LazyStrategy
from hypothesis.strategies._internal.misc import BooleansStrategy
from hypothesis.strategies._internal.numbers import FloatStrategy, IntegersStrategy
from hypothesis.strategies._internal.recursive import LimitedStrategy, RecursiveStrategy
from hypothesis.strategies._internal.strategies import (
    FilteredStrategy,
    MappedStrategy,
    OneOfStrategy,
    SampledFromStrategy,
    filter_not_satisfied,
)
from hypothesis.strategies._internal.strings import BytesStrategy, OneCharStringStrategy, TextStrategy

Draw = Callable[[], Any]

ODD_BYTES = [0, 9, 10, 11, 13, 32, 34, 58, 92, 123, 125, 0x7F, 0x80, 0xC3, 0xED, 0xEF, 0xFF]
ODD_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-9, 1e9, 1e308, 5e-324, math.inf, -math.inf, math.nan]
CHARS_UP_TO = (0x7F, 0x7F, 0x2FF, 0xD7FF, 0x10FFFF)
USUAL_ITEMS = 12
"""In a list that may be of any length."""
TRIES = 1000
MODULES = sorted(path.stem for path in (Path(__file__).parent / "unit").glob("test_fuzz_*.py"))


class Chance:
    """Turns strategies into functions that draw from them, each once."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._known: dict[int, tuple[Any, Draw]] = {}

    def of(self, strategy: Any) -> Draw:
        """Return a function that draws. Raises ``TypeError`` for a strategy that is not known here."""
        found = self._known.get(id(strategy))
        if found is None:
            # The strategy is kept too: another one must not get its id.
            found = self._known[id(strategy)] = strategy, self._make(strategy)
        return found[1]

    def _make(self, strategy: Any) -> Draw:
        pick = self._random
        match strategy:
            case LazyStrategy():
                return self.of(strategy.wrapped_strategy)
            case RecursiveStrategy():
                return self.of(strategy.strategy)
            case LimitedStrategy():
                return self.of(strategy.base_strategy)
            case OneOfStrategy():
                ways = [self.of(each) for each in strategy.original_strategies]
                return lambda: pick.choice(ways)()
            case SampledFromStrategy():
                return self._sampled(strategy)
            case MappedStrategy():
                inner, pack = self.of(strategy.mapped_strategy), strategy.pack
                return lambda: pack(inner())
            case FilteredStrategy():
                return self._filtered(self.of(strategy.filtered_strategy), strategy.flat_conditions)
            case TupleStrategy():
                parts = [self.of(each) for each in strategy.element_strategies]
                return lambda: tuple(part() for part in parts)
            case BuildsStrategy():
                args = [self.of(each) for each in strategy.args]
                named = {name: self.of(each) for name, each in strategy.kwargs.items()}
                target = strategy.target
                return lambda: target(
                    *(each() for each in args), **{name: each() for name, each in named.items()}
                )
            case FixedDictStrategy():
                return self._fixed(strategy)
            case TextStrategy():
                char = self.of(strategy.element_strategy)
                return lambda: "".join(char() for _ in range(self._size(strategy)))
            case UniqueListStrategy():
                return self._unique(strategy)
            case ListStrategy():
                item = self.of(strategy.element_strategy)
                return lambda: [item() for _ in range(self._size(strategy))]
            case OneCharStringStrategy():
                return lambda: self._char(strategy.intervals)
            case BytesStrategy():
                return lambda: bytes(
                    pick.choice(ODD_BYTES) if pick.random() < 0.4 else pick.randrange(256)
                    for _ in range(self._size(strategy))
                )
            case IntegersStrategy():
                return lambda: self._integer(strategy.start, strategy.end)
            case FloatStrategy():
                return self._filtered(self._float, [lambda value: _is_in(strategy, value)])
            case BooleansStrategy():
                return lambda: pick.random() < 0.5
        raise TypeError(f"chance knows no {type(strategy).__name__}: {strategy!r}")

    def _size(self, strategy: Any) -> int:
        low, high = int(strategy.min_size), min(strategy.max_size, strategy.min_size + 100)
        if self._random.random() < 0.6:
            high = min(high, low + USUAL_ITEMS)
        return self._random.randint(low, int(high))

    def _sampled(self, strategy: Any) -> Draw:
        pick, elements = self._random, strategy.elements
        if not strategy._transformations:
            return lambda: pick.choice(elements)
        return self._filtered(
            lambda: strategy._transform(pick.choice(elements), data=None),
            [lambda value: value is not filter_not_satisfied],
        )

    def _filtered(self, draw: Draw, conditions: Any) -> Draw:
        def filtered() -> Any:
            for _ in range(TRIES):
                value = draw()
                if all(condition(value) for condition in conditions):
                    return value
            raise ValueError("chance finds nothing that fulfils a filter")

        return filtered

    def _fixed(self, strategy: Any) -> Draw:
        pick = self._random
        needed = {name: self.of(each) for name, each in strategy.mapping.items()}
        optional = {name: self.of(each) for name, each in (strategy.optional or {}).items()}

        def fixed() -> dict[Any, Any]:
            some = {name: each() for name, each in optional.items() if pick.random() < 0.5}
            return {name: each() for name, each in needed.items()} | some

        return fixed

    def _unique(self, strategy: Any) -> Draw:
        item = self.of(strategy.element_strategy)
        rest = self.of(strategy.tuple_suffixes) if strategy.tuple_suffixes is not None else None

        def unique() -> list[Any]:
            found: dict[Any, Any] = {}
            for _ in range(self._size(strategy)):
                value = item()
                of_it = tuple(key(value) for key in strategy.keys)
                found.setdefault(of_it, value if rest is None else (value, *rest()))
            return list(found.values())

        return unique

    def _char(self, intervals: Any) -> str:
        pick = self._random
        for _ in range(8):
            point = pick.randint(0, pick.choice(CHARS_UP_TO))
            if point in intervals:
                return chr(point)
        return chr(intervals[pick.randrange(len(intervals))])

    def _integer(self, start: int | None, end: int | None) -> int:
        """Return a number that is as likely small as large, from its lower end."""
        pick = self._random
        if start is None or end is None:
            size = pick.getrandbits(pick.randint(0, 80))
            if start is not None:
                return start + size
            return end - size if end is not None else pick.choice((size, -size))
        span = end - start
        return start + min(span, pick.getrandbits(pick.randint(0, span.bit_length() + 1)))

    def _float(self) -> float:
        pick = self._random
        if pick.random() < 0.3:
            return pick.choice(ODD_FLOATS)
        if pick.random() < 0.5:
            return pick.uniform(-1000, 1000)
        found: float = struct.unpack("<d", pick.randbytes(8))[0]
        return found


def _is_in(strategy: Any, value: float) -> bool:
    if math.isnan(value):
        return bool(strategy.allow_nan)
    return bool(strategy.min_value <= value <= strategy.max_value)


def strategies_of(test: Any) -> dict[str, SearchStrategy[Any]]:
    """Return what a test that was decorated with ``given`` is given, by name."""
    found: dict[str, SearchStrategy[Any]] = test.hypothesis._given_kwargs
    return found


def checks() -> list[Any]:
    """Return every fuzz test there is."""
    found = []
    for name in MODULES:
        module = importlib.import_module(f"tests.unit.{name}")
        found += [
            each
            for name, each in vars(module).items()
            if name.startswith("test_") and hasattr(each, "hypothesis")
        ]
    return found


def case_of(test: Any, chance: Chance, places: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return what makes the arguments of one case; ``places`` holds what it needs besides, by name.

    Raises ``TypeError`` for strategies that are not known.
    """
    drawn = {name: chance.of(each) for name, each in strategies_of(test).items()}
    needed = [name for name in inspect.signature(test.hypothesis.inner_test).parameters if name not in drawn]
    here = {name: places[name] for name in needed}
    return lambda: {name: draw() for name, draw in drawn.items()} | here
