"""Which libraries the registered objects will import: found by reading their files, without running them.

A server that forks its workers imports these before, once, and a worker that has
to be replaced is there again in a fraction of a second.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from streaming.registrations import Registration

ALONG: dict[str, tuple[str, ...]] = {
    "langchain": ("langchain_core.runnables",),
    "langgraph": ("langgraph.pregel", "langgraph.prebuilt", "langgraph.checkpoint.sqlite"),
    "agents": ("agents",),
    "streaming.models": ("langchain_openai",),
}
"""What comes with an import that begins so, in this service's own files."""
ALWAYS = ("httpx",)
"""Of every runnable: the clients that it may use are made part of its run."""


def libraries_of(registrations: Iterable[Registration]) -> list[str]:
    """Return the modules to import, sorted: of frameworks only, none of the user's own.

    What a module imports through another one of the user's is not seen.
    """
    found: set[str] = set()
    for registration in registrations:
        found.update(ALWAYS)
        for name in _imported_by(registration.module):
            for beginning, along in ALONG.items():
                if name.startswith(beginning):
                    found.update(along)
                    if not name.startswith("streaming."):
                        found.add(name)
    return sorted(found)


def _imported_by(module: str) -> Iterator[str]:
    try:
        spec = _find(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return
        body = ast.parse(Path(spec.origin).read_bytes()).body
    except (OSError, SyntaxError, ValueError, ImportError):
        return  # whoever imports it says what is wrong with it
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module


def _find(module: str) -> ModuleSpec | None:
    """Return where a module is; unlike ``importlib.util.find_spec`` without importing what is around it."""
    path: list[str] | None = ["", *sys.path]
    spec = None
    for part in module.split("."):
        # By its own name only: for a folder in a folder, both without __init__.py, the finder would
        # look for the outer one among the imported modules.
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec
