"""``python -m streaming <command>``: what is done in a terminal."""

import sys
from collections.abc import Sequence

from streaming import plugins

WRONG_USE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status; a wrong one exits with 2."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if name in plugins.names("commands"):
        status: int = plugins.load("commands", name).run(rest)
        return status
    if name in ("-h", "--help"):
        print(_help())
        return 0
    wrong = f"no COMMAND is called {name!r}" if name else "a COMMAND is needed"
    print(f"{_help()}\n\n{wrong}", file=sys.stderr)
    return WRONG_USE


def _help() -> str:
    """Return the list of commands, each with the first line of its docstring."""
    names = plugins.names("commands")
    width = max(map(len, names))
    lines = ["usage: python -m streaming COMMAND …", "", "commands:"]
    for name in names:
        said = (plugins.load("commands", name).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<{width}}  {said}")
    return "\n".join([*lines, "", "More: python -m streaming COMMAND --help", "To serve: gunicorn wsgi:app"])


if __name__ == "__main__":
    sys.exit(main())
