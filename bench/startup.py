"""Start-up: from nothing to the first byte, what is imported meanwhile, and what an idle server holds."""

import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack

from msgspec import Struct

from bench import _scratch
from bench._knobs import Knobs
from bench._processes import START_SECONDS, NotStarted, Process, free_port
from bench._scratch import Place
from bench.targets import OPENAI, PROMPT, REPOSITORY, service_command, service_environment

IDLE_SECONDS = 2.0
SHOWN_IMPORTS = 6
_COMPOSE = (
    "import time; begun = time.monotonic()\n"
    "from gevent import monkey; monkey.patch_all()\n"
    "import app; app.create_app()\n"
    "import os; os.write(1, str(time.monotonic() - begun).encode()); os._exit(0)"
)


class Start(Struct, frozen=True):
    name: str
    first_byte_seconds: float
    """From the program's start to the first byte of a stream. The files are in the page cache."""
    import_seconds: float
    """To import the application and compose it, in a process that does nothing else."""
    cpu_seconds: float
    """Of all its processes, to the first byte."""
    rss_kib: int
    pss_kib: int
    """Of all its processes, after a few idle seconds."""
    slowest_imports: dict[str, float]
    """Package to milliseconds, with what it imports."""


def starts(environment: Mapping[str, str]) -> list[Start]:
    """Measure the service as it is, and without the examples and the frameworks they import."""
    ways: dict[str, dict[str, str]] = {"as it is": {}, "RUNNABLES=none": {"RUNNABLES": "none"}}
    return [start(name, {**way, **environment}) for name, way in ways.items()]


def start(name: str, settings: Mapping[str, str]) -> Start:
    """Start the service once. Raises `NotStarted`."""
    with ExitStack() as ending:
        place = ending.enter_context(_scratch.place())
        environment = {**service_environment(place), **settings}
        import_seconds = float(_run(place, environment, "-c", _COMPOSE))
        slowest = _slowest_imports(place, environment)
        port = free_port()
        service = ending.enter_context(
            Process(service_command(port), place.cores.server, place.folder, environment, REPOSITORY)
        )
        _wait_for_first_byte(service, port)
        first_byte_seconds = time.monotonic() - service.started
        cpu_seconds = service.cpu_seconds()
        time.sleep(IDLE_SECONDS)  # idle is what is measured
        return Start(
            name,
            first_byte_seconds,
            import_seconds,
            cpu_seconds,
            service.rss_kib(),
            service.pss_kib(),
            slowest,
        )


def _wait_for_first_byte(service: Process, port: int) -> None:
    service.wait_for_port(port)
    body = OPENAI.filled(f"{PROMPT}{Knobs(1)}").body
    head = f"POST {OPENAI.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
    # The server listens before its worker is there: the request waits for it.
    with socket.create_connection(("127.0.0.1", port), START_SECONDS) as connection:
        connection.sendall(request.encode())
        if not (answer := connection.recv(4096)).startswith(b"HTTP/1.1 200"):
            raise NotStarted(f"the first answer was {answer[:200]!r}")


def _run(place: Place, environment: Mapping[str, str], *arguments: str) -> str:
    command = (sys.executable, *arguments)
    with Process(command, place.cores.server, place.folder, environment, REPOSITORY) as process:
        process.wait(START_SECONDS)
        return process.log.read_text()


def _slowest_imports(place: Place, environment: Mapping[str, str]) -> dict[str, float]:
    told = _run(place, environment, "-X", "importtime", "-c", _COMPOSE)
    return slowest_imports(told)


def slowest_imports(told: str) -> dict[str, float]:
    """Read what ``python -X importtime`` tells.

    >>> slowest_imports("import time:   1000 |   5000 | openai\\nimport time:  100 |  9000 | openai.types")
    {'openai': 9.0}
    """
    packages: dict[str, float] = {}
    for line in told.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[1].strip().isdigit():
            package = fields[2].strip().partition(".")[0]
            packages[package] = max(packages.get(package, 0.0), int(fields[1]) / 1000)
    slowest = sorted(packages.items(), key=lambda found: -found[1])
    return dict(slowest[:SHOWN_IMPORTS])
