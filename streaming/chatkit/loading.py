"""Import a large library while the worker goes on with everything else.

Importing it takes seconds of a processor. In one piece, they would stand still
for every stream of the worker, on a busy machine long enough to lose its lease.
So before each module of the library's the importing greenlet lets others run.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder

import gevent


def load(name: str) -> None:
    """Import a module, and what it imports, in slices of one module each."""
    if name not in sys.modules:
        with _giving_way():
            import_module(name)


@contextmanager
def _giving_way() -> Iterator[None]:
    finder = _GivesWay(gevent.getcurrent())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _GivesWay(MetaPathFinder):
    """Finds nothing, but is asked for each module that is not there yet."""

    def __init__(self, importing: object) -> None:
        self._importing = importing

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if gevent.getcurrent() is self._importing:
            gevent.sleep(0)
