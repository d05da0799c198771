"""Find plug-ins: each module of a family's package is one, named by its file.

A leading underscore marks a helper. Only the modules that are asked for are
imported, so an unused store or SDK need not be installed.
"""

import functools
import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from streaming.errors import InvalidRequest


@functools.cache
def names(family: str) -> list[str]:
    """Return the plug-in names of a family, such as ``formats``."""
    package = import_module(f"streaming.{family}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load(family: str, name: str) -> ModuleType:
    """Import the plug-in called ``name``; raise `InvalidRequest` with the known names."""
    known = names(family)
    if name not in known:
        singular = family.removesuffix("s")
        raise InvalidRequest(
            f"no {singular} is called {name[:100]!r}; known: {', '.join(known)}",
            code=f"unknown_{singular}",
            param=singular,
        )
    return import_module(f"streaming.{family}.{name}")


def create(family: str, name: str, *arguments: Any, **options: Any) -> Any:
    return load(family, name).create(*arguments, **options)
