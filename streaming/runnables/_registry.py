"""Find what a user registered, and make a source of each."""

import importlib
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from streaming import plugins
from streaming.errors import SettingsError
from streaming.registrations import EXAMPLES, Registration
from streaming.runnables import Registered
from streaming.runnables._declared import configurable_of
from streaming.settings import Settings

logger = logging.getLogger(__name__)


def load_registered(settings: Settings) -> dict[str, Registered]:
    """Import what the settings register, and return it by its name. Raises `SettingsError`.

    An example that cannot be had is left out, since nobody asked for it: its model
    may not be one of the upstreams. To be called in the process that serves: what
    is imported may open connections.
    """
    if not settings.registrations:
        return {}
    from streaming.runnables import _clients

    _clients.use(settings)  # before they are imported: their models ask the upstreams of these settings
    loaded = {}
    for each in settings.registrations:
        try:
            loaded[each.name] = _load(each, settings)
        except SettingsError as error:
            if settings.runnables != EXAMPLES:
                raise
            logger.warning("an example is left out", extra={"runnable": each.name, "why": str(error)})
    return loaded


def _load(registration: Registration, settings: Settings) -> Registered:
    name = registration.name
    if name in plugins.names("sources"):
        raise _unusable(registration, "a source of this service has that name")
    found = _find(registration)
    for kind in _kinds(found):
        module = _framework(kind)
        if module is not None and module.accepts(found):
            source = module.create(found, settings)
            modes, configurable = tuple(module.MODES), configurable_of(found)
            return Registered(name, kind, found, source, modes, configurable, module.remembers(found))
    known = ", ".join(plugins.names("runnables"))
    shown = f"{registration.module}:{registration.attribute}"
    raise _unusable(registration, f"{shown} is a {type(found).__name__}, which is none of: {known}")


def _find(registration: Registration) -> Any:
    try:
        found: Any = importlib.import_module(registration.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if registration.module == missing or registration.module.startswith(f"{missing}."):
            raise _unusable(registration, f"there is no module {missing}") from None
        raise _unusable(registration, f"{registration.module} needs the module {missing}") from error
    except (Exception, SystemExit) as error:
        # Its words may quote a key, but whoever starts the service may see the log.
        logger.warning("a runnable cannot be imported", extra={"runnable": registration.name}, exc_info=True)
        raise _unusable(
            registration, f"importing {registration.module} raised {type(error).__name__}: {error}"
        ) from error
    for place in registration.attribute.split("."):
        try:
            found = getattr(found, place)
        except AttributeError:
            shown = registration.module
            raise _unusable(registration, f"{shown} has no {registration.attribute}") from None
    return found


def _kinds(found: object) -> Iterator[str]:
    """Yield the kinds that ``found`` may be, those first whose framework its class comes from.

    So a service that has only a tool loop never imports the frameworks of the others.
    """
    modules = {base.__module__ for base in type(found).__mro__}
    kinds = plugins.names("runnables")
    likely = [kind for kind in kinds if any(_is_of(module, kind) for module in modules)]
    yield from likely
    yield from (kind for kind in kinds if kind not in likely)


def _is_of(module: str, kind: str) -> bool:
    """Say whether a class of ``module`` is of that kind: ``langchain`` has ``langchain_core`` too."""
    package = module.partition(".")[0]
    return module.startswith(f"streaming.runnables.{kind}") or package.startswith(kind)


def _framework(kind: str) -> ModuleType | None:
    try:
        return plugins.load("runnables", kind)
    except ImportError:
        logger.warning("a kind of runnables cannot be imported", extra={"kind": kind}, exc_info=True)
        return None


def _unusable(registration: Registration, why: str) -> SettingsError:
    return SettingsError(f"RUNNABLES: {registration.name}: {why}")
