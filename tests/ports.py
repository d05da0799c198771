"""TCP ports of 127.0.0.1 for the servers of a test run, which nobody else takes meanwhile.

A port that the system chooses is free only when it is asked for: until a server
listens there, any outgoing connection may get it, and another process of the
same run too. These are below the ports of outgoing connections, and each
process has a row of its own.
"""

import itertools
import socket

# Linux gives outgoing connections 32768 and more. Chromium does not open 10080.
_ROWS = range(12_000, 32_000, 200)
_claim: tuple[socket.socket, "itertools.cycle[int]"] | None = None


def free_port() -> int:
    """Return a port that nobody listens on, and that this run gives to nobody else soon."""
    global _claim
    if _claim is None:
        _claim = _claimed_row()
    _, ports = _claim
    for port in itertools.islice(ports, _ROWS.step):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port of this process's row is taken")


def _claimed_row() -> tuple[socket.socket, "itertools.cycle[int]"]:
    """Return the ports of a row, and the socket on the first of them that keeps others out."""
    for first in _ROWS:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        return claim, itertools.cycle(range(first + 1, first + _ROWS.step))
    raise AssertionError("every row of ports is taken")
