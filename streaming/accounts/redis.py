"""Accounts in the Redis server of the event log, whose scripts write them, and let them expire."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from streaming.accounts import COLUMNS, Accounts, By, Row, Used, summed
from streaming.eventlogs.redis import RedisLog


class RedisAccounts:
    """See `Accounts`."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log

    def rows(self, first: str, last: str, principal: str | None, by: Sequence[By]) -> list[Row]:
        return summed(self._rows(first, last, principal), by)

    def used(self, day: str, principal: str) -> Used:
        return _used(sum((numbers for _, numbers in self._models(day, principal)), Counter()))

    def used_by_kind(self, day: str) -> dict[str, Used]:
        numbers = _by_name(self._log.ask("HGETALL", f"sluice:usage-kinds:{day}"))
        return {kind: _used(found) for kind, found in numbers.items()}

    def expire(self, before: str) -> None:
        """The server does that by itself."""

    def _rows(self, first: str, last: str, principal: str | None) -> Iterator[Row]:
        for day in _days(first, last):
            if principal is not None:
                owners = [principal]
            else:
                found = self._log.ask("SMEMBERS", f"sluice:usage-owners:{day}")
                owners = sorted(owner.decode() for owner in found)
            for owner in owners:
                for model, numbers in self._models(day, owner):
                    yield Row(day, owner, model, [numbers[column] for column in COLUMNS])

    def _models(self, day: str, owner: str) -> Iterator[tuple[str, "Counter[str]"]]:
        yield from _by_name(self._log.ask("HGETALL", f"sluice:usage:{day}:{owner}")).items()


def _by_name(fields: Sequence[bytes]) -> dict[str, Counter[str]]:
    """Return the numbers of each model or kind, from fields ``<column> <name>`` and values in turn."""
    found: dict[str, Counter[str]] = {}
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        column, _, name = field.decode().partition(" ")
        found.setdefault(name, Counter())[column] = int(value)
    return found


def _used(numbers: Counter[str]) -> Used:
    return Used(numbers["tokens_in"] + numbers["tokens_out"], numbers["bytes"], numbers["cost_nano"])


def _days(first: str, last: str) -> Iterator[str]:
    day, end = date.fromisoformat(first), date.fromisoformat(last)
    while day <= end:
        yield day.isoformat()
        day += timedelta(days=1)


def create(log: RedisLog) -> Accounts:
    return RedisAccounts(log)
