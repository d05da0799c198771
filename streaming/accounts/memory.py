"""Accounts in this process's memory, where the log in memory writes them."""

from collections import Counter
from collections.abc import Iterable, Sequence

from streaming.accounts import COLUMNS, Accounts, By, Row, Used, summed
from streaming.eventlogs.memory import MemoryLog


class MemoryAccounts:
    """See `Accounts`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def rows(self, first: str, last: str, principal: str | None, by: Sequence[By]) -> list[Row]:
        found = [
            Row(day, owner, model, [numbers[column] for column in COLUMNS])
            for (day, owner, model), numbers in self._log.accounts.items()
            if first <= day <= last and principal in (None, owner)
        ]
        return summed(found, by)

    def used(self, day: str, principal: str) -> Used:
        return _used(
            numbers
            for (on, owner, _), numbers in self._log.accounts.items()
            if (on, owner) == (day, principal)
        )

    def used_by_kind(self, day: str) -> dict[str, Used]:
        kinds = {owner.partition("_")[0] for on, owner, _ in self._log.accounts if on == day}
        return {
            kind: _used(
                numbers
                for (on, owner, _), numbers in self._log.accounts.items()
                if on == day and owner.partition("_")[0] == kind
            )
            for kind in kinds
        }

    def expire(self, before: str) -> None:
        for place in [place for place in self._log.accounts if place[0] < before]:
            del self._log.accounts[place]


def _used(accounts: Iterable[Counter[str]]) -> Used:
    total: Counter[str] = Counter()
    for numbers in accounts:
        total.update(numbers)
    return Used(total["tokens_in"] + total["tokens_out"], total["bytes"], total["cost_nano"])


def create(log: MemoryLog) -> Accounts:
    return MemoryAccounts(log)
