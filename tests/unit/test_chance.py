"""Plain chance makes what the fuzz tests are given, as their strategies say it."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.chance import Chance, case_of, checks, strategies_of
from tests.fuzzing import TEXTS

CASES = 20


@pytest.mark.parametrize("test", checks(), ids=lambda test: test.__name__)
def test_every_fuzz_test_can_be_tried_by_hand(test: Any) -> None:
    make = case_of(test, Chance(0), defaultdict(object))
    for _ in range(CASES):
        assert strategies_of(test).keys() <= make().keys()


def test_what_is_drawn_is_within_what_was_asked_for() -> None:
    chance = Chance(1)
    number, text, plain = (
        chance.of(each) for each in (st.integers(3, 7), st.text("ab", min_size=2, max_size=5), TEXTS)
    )
    even = chance.of(st.lists(st.integers(), min_size=1).map(len).filter(lambda size: size % 2 == 0))
    named = chance.of(st.dictionaries(st.sampled_from(["a", "b"]), st.booleans(), max_size=2))
    fraction = chance.of(st.floats(-1, 1))
    for _ in range(300):
        assert 3 <= number() <= 7
        assert set(made := text()) <= {"a", "b"}
        assert 2 <= len(made) <= 5
        plain().encode()
        assert even() % 2 == 0
        assert set(named()) <= {"a", "b"}
        assert -1 <= fraction() <= 1
    assert {number() for _ in range(300)} == {3, 4, 5, 6, 7}


def test_the_same_start_makes_the_same_cases() -> None:
    first, again, other = (Chance(seed).of(st.lists(TEXTS)) for seed in (1, 1, 2))
    drawn = [first() for _ in range(20)]
    assert [again() for _ in range(20)] == drawn
    assert [other() for _ in range(20)] != drawn


def test_a_strategy_that_is_not_known_is_told() -> None:
    with pytest.raises(TypeError, match="chance knows no"):
        Chance(0).of(st.dates())
