"""Ask, and print the answer as it comes."""

from collections.abc import Sequence

from streaming.terminal import arguments


def run(argv: Sequence[str]) -> int:
    """Run or resume a stream and print it. A wrong command line exits with 2."""
    try:
        asked = arguments.parse(["ask", *argv])
        if not asked.url:
            # Before anything that opens a socket is imported. A client of another service needs none of it.
            from gevent import monkey

            monkey.patch_all()
        from streaming.terminal.ask import ask

        return ask(asked)
    except KeyboardInterrupt:  # before a run was begun
        return arguments.STOPPED
