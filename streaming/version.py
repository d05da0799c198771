"""Which version of the service this is."""

import functools
import tomllib
from importlib import metadata
from pathlib import Path


@functools.cache
def version() -> str:
    """Return the version of the installed package, or of this folder; "unknown" where neither tells."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    try:
        return str(tomllib.loads(project.read_text())["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        pass
    try:
        return metadata.version("sluice")
    except metadata.PackageNotFoundError:
        return "unknown"
