"""What several requests of one run used together."""

from typing import Any

# What JSON's readers, and the log, can take.
LARGEST = 2**63 - 1


class UsageSum:
    """Adds up usage of the same upstream: its numbers by their names, inner ones too."""

    def __init__(self) -> None:
        self.sum: dict[str, Any] | None = None

    def add(self, usage: dict[str, Any] | None) -> None:
        if usage:
            self.sum = _added(self.sum or {}, usage)


def _added(before: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the sums; of what is not a number the newer.

    >>> _added({"a": 1, "in": {"b": 2}, "c": "x"}, {"a": 2, "in": {"b": 1}, "c": "y", "d": None})
    {'a': 3, 'in': {'b': 3}, 'c': 'y', 'd': None}
    """
    total = dict(before)
    for name, value in more.items():
        known = before.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            total[name] = _added(known, value)
        elif _is_number(known) and _is_number(value):
            total[name] = min(known + value, LARGEST)
        elif value is not None or known is None:
            total[name] = value
    return total


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
