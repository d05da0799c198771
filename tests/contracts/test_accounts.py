"""What every store of accounts promises; they are written by the log beside it."""

from collections.abc import Callable

import pytest

from streaming import plugins
from streaming.accounts import NANO, Accounts, Used, shown
from streaming.errors import Fenced
from streaming.eventlogs import Claim, EventLog, Spent, State
from tests.doubles import new_stream

DAY = "2026-11-21"


@pytest.fixture
def accounts(log: EventLog, log_name: str) -> Accounts:
    made: Accounts = plugins.create("accounts", log_name, log)
    return made


def spent(day: str = DAY, model: str = "m", cost: float | None = None, estimated: bool = False) -> Spent:
    return Spent(day, model, 10, 20, estimated, 300, 1500, None if cost is None else round(cost * NANO))


def run(log: EventLog, owner: str, used: Spent, end: State = "completed") -> Claim:
    claim = Claim(log.create(new_stream(log, owner=owner), [b"first"]), 1)
    log.append(claim, 2, [b"end"], end, used)
    return claim


def test_what_runs_used_is_added_up_for_each_day_owner_and_model(
    log: EventLog, peer: EventLog, accounts: Accounts
) -> None:
    run(log, "key_a", spent(cost=0.25))
    run(peer, "key_a", spent(cost=0.5, estimated=True), "cancelled")
    run(log, "key_a", spent(model="other model"), "failed")
    run(log, "key_b", spent(), "interrupted")
    run(log, "key_a", spent(day="2026-11-20"))

    rows = accounts.rows("2026-11-20", DAY, "key_a", ("day", "model"))
    assert [(row.day, row.principal, row.model) for row in rows] == [
        ("2026-11-20", "", "m"),
        (DAY, "", "m"),
        (DAY, "", "other model"),
    ]
    mine = shown(rows[1], ("day", "model"))
    assert (mine.runs.completed, mine.runs.cancelled, mine.runs.failed) == (1, 1, 0)
    assert (mine.tokens_in, mine.tokens_out, mine.estimated_runs) == (20, 40, 1)
    assert (mine.bytes, mine.seconds, mine.cost, mine.unpriced_runs) == (600, 3.0, 0.75, 0)
    other = shown(rows[2], ())
    assert not other.cost
    assert other.unpriced_runs == other.runs.failed == 1

    everybody = accounts.rows(DAY, DAY, None, ("principal",))
    assert [(row.principal, sum(row.numbers[:4])) for row in everybody] == [("key_a", 3), ("key_b", 1)]
    (total,) = accounts.rows("2026-11-01", DAY, None, ())
    assert sum(total.numbers[:4]) == 5


def test_an_account_without_runs_is_empty(accounts: Accounts) -> None:
    assert accounts.rows(DAY, DAY, "key_a", ("model",)) == []
    assert accounts.used(DAY, "key_a") == Used()
    assert accounts.used_by_kind(DAY) == {}


def test_what_counts_towards_budgets_is_told_by_owner_and_by_kind(log: EventLog, accounts: Accounts) -> None:
    run(log, "visitor_1", spent(cost=1))
    run(log, "visitor_2", spent(model="x"))
    run(log, "key_a_b", spent())
    run(log, "", spent())
    assert accounts.used(DAY, "visitor_1") == Used(30, 300, NANO)
    assert accounts.used_by_kind(DAY) == {
        "visitor": Used(60, 600, NANO),
        "key": Used(30, 300),
        "": Used(30, 300),
    }


def test_a_run_is_counted_by_whoever_ended_it_and_once(
    log: EventLog, peer: EventLog, accounts: Accounts
) -> None:
    claim = Claim(log.create(new_stream(log, owner="key_a"), [b"first"]), 1)
    taken = peer.take_over(claim.stream_id, "another", force=True)
    assert taken
    with pytest.raises(Fenced):
        log.append(claim, 2, [b"end"], "completed", spent())
    peer.append(taken, 2, [b"end"], "interrupted", spent())
    with pytest.raises(Fenced):
        peer.append(taken, 2, [b"end"], "interrupted", spent())
    assert accounts.used(DAY, "key_a").tokens == 30


def test_accounts_outlast_their_streams_and_a_restart(
    log: EventLog, open_log: Callable[[], EventLog], log_name: str
) -> None:
    claim = run(log, "key_a", spent())
    log.erase(claim.stream_id)
    again: Accounts = plugins.create("accounts", log_name, open_log())
    assert again.used(DAY, "key_a").tokens == 30


def test_old_days_are_forgotten(log: EventLog, accounts: Accounts, log_name: str) -> None:
    run(log, "key_a", spent(day="2025-01-01"))
    run(log, "key_a", spent())
    accounts.expire("2026-01-01")
    if log_name != "redis":  # it forgets by its own clock
        assert accounts.used("2025-01-01", "key_a") == Used()
    assert accounts.used(DAY, "key_a").tokens == 30
