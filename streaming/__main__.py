"""``python -m streaming ask "…"``: the service's client for the terminal."""

import sys
from collections.abc import Sequence

from streaming.terminal import arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status; a wrong one exits with 2."""
    try:
        asked = arguments.parse(argv)
        if not asked.url:
            # Before anything that opens a socket is imported. A client of another service needs none of it.
            from gevent import monkey

            monkey.patch_all()
        from streaming.terminal.ask import ask

        return ask(asked)
    except KeyboardInterrupt:  # before a run was begun
        return arguments.STOPPED


if __name__ == "__main__":
    sys.exit(main())
