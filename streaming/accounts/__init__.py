"""Accounts: what each principal used on each day, of each model.

An account is written by the event log, in one step with the last event of a
run: neither is there without the other, whichever worker ended the run. A
store of accounts only reads them, and forgets the old ones. Days are those of
UTC, and a run belongs to the day on which it ended.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import UNSET, Struct, UnsetType

By = Literal["day", "principal", "model"]
COLUMNS = (
    "completed",
    "cancelled",
    "failed",
    "interrupted",
    "tokens_in",
    "tokens_out",
    "estimated",
    "bytes",
    "milliseconds",
    "cost_nano",
    "priced",
)
"""The numbers of an account, in the order of the SQLite table."""
NANO = 1_000_000_000


class Row(NamedTuple):
    """Sums over a day, a principal and a model; "" for each that was summed over."""

    day: str
    principal: str
    model: str
    numbers: Sequence[int]
    """In the order of `COLUMNS`."""


class Used(NamedTuple):
    """What counts towards a day's budgets."""

    tokens: int = 0
    bytes: int = 0
    cost_nano: int = 0


class Accounts(Protocol):
    """Methods block the calling greenlet only, or shortly. Any may raise `StoreUnavailable`."""

    def rows(self, first: str, last: str, principal: str | None, by: Sequence[By]) -> list[Row]:
        """Return the sums of the days ``first`` to ``last``, of one principal or, with ``None``, of all."""
        ...

    def used(self, day: str, principal: str) -> Used:
        """Return what a principal used on a day."""
        ...

    def used_by_kind(self, day: str) -> dict[str, Used]:
        """Return what all used on a day, by what their ids begin with: ``key``, ``visitor``, ``user``, ""."""
        ...

    def expire(self, before: str) -> None:
        """Forget days before that one."""
        ...


class Runs(Struct, frozen=True):
    """How many ended so."""

    completed: int
    cancelled: int
    failed: int
    interrupted: int


class Sum(Struct, frozen=True):
    """What was used, as it is shown."""

    runs: Runs
    tokens_in: int
    tokens_out: int
    estimated_runs: int
    """In which not all tokens are the upstream's own count."""
    bytes: int
    """Of events, as they are in the log."""
    seconds: float
    unpriced_runs: int
    """Whose model has no price: their cost is in no sum."""
    day: str | UnsetType = UNSET
    principal: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    cost: float | UnsetType = UNSET
    """In the unit the prices are in; absent where no run had a price."""


def shown(row: Row, by: Sequence[By]) -> Sum:
    told = dict(zip(COLUMNS, row.numbers, strict=True))
    runs = Runs(told["completed"], told["cancelled"], told["failed"], told["interrupted"])
    return Sum(
        runs=runs,
        tokens_in=told["tokens_in"],
        tokens_out=told["tokens_out"],
        estimated_runs=told["estimated"],
        bytes=told["bytes"],
        seconds=told["milliseconds"] / 1000,
        unpriced_runs=sum(row.numbers[:4]) - told["priced"],
        day=row.day if "day" in by else UNSET,
        principal=row.principal if "principal" in by else UNSET,
        model=row.model if "model" in by else UNSET,
        cost=told["cost_nano"] / NANO if told["priced"] else UNSET,
    )


def summed(rows: Iterable[Row], by: Sequence[By]) -> list[Row]:
    """Return the sums of rows that are the same in what is named by ``by``, in order."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
    for row in rows:
        place = (
            row.day if "day" in by else "",
            row.principal if "principal" in by else "",
            row.model if "model" in by else "",
        )
        numbers = sums[place]
        for at, number in enumerate(row.numbers):
            numbers[at] += number
    return [Row(*place, numbers) for place, numbers in sorted(sums.items())]
