"""Accounts in the SQLite file of the event log, which writes them."""

from collections.abc import Sequence

from streaming.accounts import COLUMNS, Accounts, By, Row, Used
from streaming.eventlogs.sqlite import SQLiteLog

_SUMS = ", ".join(f"sum({column})" for column in COLUMNS)
_USED = "coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(bytes), 0), coalesce(sum(cost_nano), 0)"
_COLUMN = {"day": "day", "principal": "owner", "model": "model"}


class SQLiteAccounts:
    """See `Accounts`."""

    def __init__(self, log: SQLiteLog) -> None:
        self._log = log

    def rows(self, first: str, last: str, principal: str | None, by: Sequence[By]) -> list[Row]:
        places = [column if name in by else "''" for name, column in _COLUMN.items()]
        group = ", ".join(column for name, column in _COLUMN.items() if name in by) or "''"
        whose, bindings = ("", ()) if principal is None else (" AND owner = ?", (principal,))
        rows = self._log.rows(
            f"SELECT {', '.join(places)}, {_SUMS} FROM usage WHERE day BETWEEN ? AND ?{whose}"
            f" GROUP BY {group} ORDER BY 1, 2, 3",
            (first, last, *bindings),
        )
        return [Row(day, owner, model, numbers) for day, owner, model, *numbers in rows]

    def used(self, day: str, principal: str) -> Used:
        found = self._log.rows(f"SELECT {_USED} FROM usage WHERE day = ? AND owner = ?", (day, principal))
        return Used(*found[0])

    def used_by_kind(self, day: str) -> dict[str, Used]:
        kind = "substr(owner, 1, instr(owner || '_', '_') - 1)"
        rows = self._log.rows(f"SELECT {kind}, {_USED} FROM usage WHERE day = ? GROUP BY 1", (day,))
        return {kind: Used(*numbers) for kind, *numbers in rows}

    def expire(self, before: str) -> None:
        self._log.write(lambda db: db.execute("DELETE FROM usage WHERE day < ?", (before,)))


def create(log: SQLiteLog) -> Accounts:
    return SQLiteAccounts(log)
