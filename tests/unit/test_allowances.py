"""What a principal may use, and how a request is made to fit."""

from typing import Any

import pytest

from streaming.allowances import Allowance, allowance_of, check_limits
from streaming.errors import InvalidRequest, SettingsError
from streaming.fitting import fit
from streaming.principals import OPEN, Principal
from streaming.settings import Settings
from streaming.sources import Prompt

MESSAGES = [{"role": "user", "content": "hi"}]


def key(**limits: Any) -> Principal:
    return Principal("key_a", "key", limits=limits)


def test_a_key_has_the_limits_of_the_settings_but_for_its_own() -> None:
    settings = Settings(running_per_principal=4, creates_per_minute=5)
    allowance = allowance_of(key(running=9, models=["a"]), settings)
    assert (allowance.running, allowance.creates_per_minute, allowance.models) == (9, 5, ("a",))
    assert allowance_of(Principal("user_a", "user"), settings).running == 4


def test_a_visitor_has_smaller_ones_and_never_more_output_than_everybody() -> None:
    settings = Settings(visitor_running=1, max_output_tokens=100, visitor_max_output_tokens=4000)
    visitor = allowance_of(Principal("visitor_1", "visitor"), settings)
    assert (visitor.running, visitor.max_output_tokens) == (1, 100)


def test_the_open_mode_is_held_only_to_what_goes_for_every_request() -> None:
    allowance = allowance_of(OPEN, Settings(max_output_tokens=7))
    assert allowance == Allowance(max_output_tokens=7, images=50)


def test_limits_that_cannot_be_read_are_not_no_limits() -> None:
    assert allowance_of(key(running="many"), Settings()).running == 10
    assert allowance_of(key(of_a_later_version=1), Settings()).running == 10


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"runs": 1}, "runs"),
        ({"running": "many"}, "running"),
        ({"running": -1}, "running"),
        ({"cost_per_day": float("inf")}, "cost_per_day"),
        ({"models": [1]}, "models"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(limits: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        check_limits(limits)
    check_limits({"running": 3, "cost_per_day": 0.5, "models": ["a"]})


@pytest.mark.parametrize(
    ("params", "fitted"),
    [
        ({}, {"max_tokens": 10}),
        ({"max_tokens": 11}, {"max_tokens": 10}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 1e9}, {"max_completion_tokens": 10}),
        ({"max_tokens": 11, "max_completion_tokens": 12}, {"max_tokens": 10, "max_completion_tokens": 10}),
        ({"max_completion_tokens": None}, {"max_tokens": 10}),
        ({"max_tokens": "11"}, {"max_tokens": "11"}),  # the upstream's to refuse
    ],
)
def test_output_is_lowered_to_what_is_allowed(params: dict[str, Any], fitted: dict[str, Any]) -> None:
    allowance = Allowance(max_output_tokens=10)
    assert fit(Prompt("m", MESSAGES, params), allowance, "max_tokens").params == fitted
    assert fit(Prompt("m", MESSAGES, params), Allowance(), "max_tokens").params == params


def test_a_responses_request_has_a_field_of_its_own() -> None:
    prompt = Prompt("m", [], response={"input": MESSAGES, "max_output_tokens": 50})
    fitted = fit(prompt, Allowance(max_output_tokens=10), "max_tokens")
    assert fitted.response == {"input": MESSAGES, "max_output_tokens": 10}
    assert fitted.params == {}


def test_a_runnable_is_told_no_limit_that_nobody_asked_for() -> None:
    assert fit(Prompt("r", MESSAGES), Allowance(max_output_tokens=10), "").params == {}


def test_images_are_counted_wherever_they_are_in_a_runnables_input() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    prompt = Prompt("r", [], input={"messages": [{"role": "user", "content": [image, image]}]})
    with pytest.raises(InvalidRequest, match="2 images, at most 1"):
        fit(prompt, Allowance(images=1), "")
    assert fit(prompt, Allowance(images=2), "") == prompt


@pytest.mark.parametrize("bad", ["m", "m=1", "m=1/", "=1/2", "m=a/b", "m=-1/2", "m=nan/2", "m=1/inf"])
def test_a_price_that_is_none_stops_the_start(bad: str) -> None:
    with pytest.raises(SettingsError, match="PRICES"):
        Settings(prices=(bad,))
    assert Settings(prices=("m=0.25/2",)).price_of["m"].tokens_out == 2
