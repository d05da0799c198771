"""A soak's judge: growth is found, and noise is not taken for it."""

import random

from tests.chaos.growth import grows


def points(values: list[float]) -> list[tuple[float, float]]:
    return [(5.0 * place, value) for place, value in enumerate(values)]


def test_what_rises_steadily_by_more_than_a_twentieth_is_growth() -> None:
    assert grows(points([200.0 + place / 10 for place in range(180)]), slack=6) is not None


def test_what_moves_to_and_fro_is_not_growth() -> None:
    chance = random.Random(1)
    assert grows(points([200.0 + chance.uniform(-15, 15) for _ in range(180)]), slack=6) is None


def test_a_few_descriptors_more_are_not_growth() -> None:
    assert grows(points([20.0, 22.0, 24.0]), slack=12) is None


def test_what_falls_is_not_growth() -> None:
    assert grows(points([300.0 - place for place in range(100)]), slack=6) is None
