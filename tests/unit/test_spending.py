"""What a run used: the upstream's count first, then an estimate that says so."""

import pytest

from streaming.errors import Interrupted, UpstreamUnreachable
from streaming.events import Done, Error, Metrics, Status, Token, Usage
from streaming.spending import MOST_COST_NANO, MOST_COUNTED, spent_by
from streaming.tally import Tally
from streaming.upstreams import Price

PRICES = {"m": Price(1.0, 2.0), "other": Price(10.0, 20.0)}
ASKED = [{"role": "user", "content": "x" * 400}]
COUNTED = {"prompt_tokens": 10, "completion_tokens": 20}


def tally_of(*events: Token | Usage | Status) -> Tally:
    tally = Tally("m")
    tally.add(events)
    return tally


def test_the_upstreams_own_count_is_taken_in_both_dialects() -> None:
    for usage in (COUNTED, {"input_tokens": 10, "output_tokens": 20}):
        spent = spent_by(Done("stop", usage), tally_of(Token("a")), PRICES, asked=ASKED, seconds=1.5)
        assert (spent.tokens_in, spent.tokens_out, spent.estimated) == (10, 20, False)
        assert (spent.model, spent.cost_nano, spent.milliseconds) == ("m", 50_000, 1500)


def test_usage_that_came_before_the_run_was_cut_counts() -> None:
    error = Error(Interrupted("gone").info())
    spent = spent_by(error, tally_of(Token("a"), Usage(COUNTED)), PRICES, "m")
    assert (spent.tokens_in, spent.tokens_out, spent.estimated) == (10, 20, False)


def test_what_nobody_counted_is_estimated_and_says_so() -> None:
    spent = spent_by(Done("cancelled"), tally_of(Token("four"), Token("five")), PRICES, asked=ASKED)
    assert spent.estimated
    assert spent.tokens_out == 2
    assert 100 <= spent.tokens_in <= 110
    measured = Done("stop", metrics=Metrics(7, 1.0, prompt_tokens=5, estimated=True))
    spent = spent_by(measured, tally_of(Token("a")), PRICES, asked=ASKED)
    assert (spent.tokens_in, spent.tokens_out, spent.estimated) == (5, 7, True)


def test_half_a_count_is_an_estimate_for_the_other_half() -> None:
    spent = spent_by(Done("stop", {"completion_tokens": 20}), tally_of(Token("a")), PRICES, asked=ASKED)
    assert spent.tokens_out == 20
    assert spent.tokens_in >= 100
    assert spent.estimated


def test_a_run_that_never_reached_a_model_used_nothing() -> None:
    error = Error(UpstreamUnreachable("nobody there").info(), metrics=Metrics(0, 0.1, prompt_tokens=100))
    spent = spent_by(error, tally_of(), PRICES, asked=ASKED)
    assert (spent.tokens_in, spent.tokens_out, spent.estimated, spent.cost_nano) == (0, 0, False, 0)


def test_a_run_that_was_stopped_before_its_first_word_was_asked_all_the_same() -> None:
    for last in (Done("cancelled"), Error(Interrupted("gone").info())):
        assert spent_by(last, tally_of(), PRICES, asked=ASKED).tokens_in >= 100


def test_the_model_that_answered_is_paid_for_not_the_one_that_was_named() -> None:
    tally = tally_of(Status("fallback", 5, "other"), Token("a"))
    spent = spent_by(Done("stop", COUNTED), tally, PRICES)
    assert (spent.model, spent.cost_nano) == ("other", 500_000)


def test_a_model_without_a_price_has_no_cost() -> None:
    assert spent_by(Done("stop", COUNTED), Tally("cheap"), PRICES).cost_nano is None


@pytest.mark.parametrize("said", [-5, True, "20", 2.5, None])
def test_a_count_that_is_none_is_not_taken(said: object) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": said}
    assert spent_by(Done("stop", usage), tally_of(Token("four")), PRICES).tokens_out == 1


def test_an_upstream_that_exaggerates_breaks_no_account() -> None:
    usage = {"prompt_tokens": 10**30, "completion_tokens": 10**30}
    spent = spent_by(Done("stop", usage), Tally("m"), {"m": Price(1e6, 1e6)})
    assert spent.tokens_in == spent.tokens_out == MOST_COUNTED
    assert spent.cost_nano == MOST_COST_NANO
