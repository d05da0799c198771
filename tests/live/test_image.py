"""What the Dockerfile copies, sets and starts serves: as another account, on a read-only file system.

Docker itself is not needed. The layers below (the base image, and that the
packages install from their wheels alone) are left to the build.
"""

import contextlib
import os
import shutil
import signal
import site
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import REPOSITORY, command, context, environment, final_stage
from tests.live import sandbox
from tests.live.sandbox import Sandbox
from tests.live.service import EventReader, free_port, request, text_of, wait_until

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "never")

STAGE = final_stage((REPOSITORY / "Dockerfile").read_text())


class Container:
    """The image's command, its files copied to a folder, its packages this interpreter's."""

    def __init__(self, sandbox_: Sandbox) -> None:
        self._sandbox = sandbox_
        for path in context(REPOSITORY):
            target = self._sandbox.app / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, target)
        self.port = free_port()
        data = str(self._sandbox.data)
        image = {name: value.replace("/data", data) for name, value in environment(STAGE).items()}
        self._variables = image | {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": site.getsitepackages()[0],
            "PORT": str(self.port),
            # Tests listen on loopback only; in a container it is every address, and AUTH says who may ask.
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{self.port}",
            "AUTH": "open",
        }
        self.process = self._sandbox.start(self._program("CMD"), self._variables)

    def check_health(self) -> int:
        """Return the exit status of the image's health check."""
        return self._sandbox.run(self._program("HEALTHCHECK"), self._variables)

    def run(self, *words: str) -> int:
        """Return the exit status of another program of the image's interpreter."""
        return self._sandbox.run([sandbox.interpreter(), *words], self._variables)

    def log_text(self) -> str:
        return self._sandbox.log_text()

    @property
    def data(self) -> Path:
        return self._sandbox.data

    def _program(self, name: str) -> list[str]:
        """Return what the image says, with an interpreter that the other account may run."""
        first, *rest = command(STAGE, name)
        return [sandbox.interpreter(), *([] if first == "python" else ["-m", first]), *rest]


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with running() as started:
        yield started


@contextlib.contextmanager
def running() -> Iterator[Container]:
    with Sandbox() as made:
        started = Container(made)
        try:
            wait_until(lambda: _answers(started), 60, "the image's service answers")
            yield started
        finally:
            sandbox.kill(started.process)


def _answers(container: Container) -> bool:
    assert container.process.poll() is None, container.log_text()[-4000:]
    try:
        return request(container.port, "GET", "/healthz", timeout_seconds=2).status == 200
    except OSError:
        return False


def test_the_image_s_files_are_enough_to_stream(container: Container) -> None:
    with EventReader(container.port).open("/streams", method="POST", body={"prompt": "hi"}) as reader:
        events = list(reader)

    assert text_of(events)
    assert events[-1].json()["type"] == "done"


def test_the_image_s_page_and_its_parts_are_served(container: Container) -> None:
    page = request(container.port, "GET", "/", headers={"Accept": "text/html"})

    assert (page.status, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert request(container.port, "GET", "/static/sluice.js").status == 200


def test_the_image_s_health_check_sees_life(container: Container) -> None:
    assert container.check_health() == 0


def test_the_service_is_another_account_that_can_write_its_data_and_nothing_else(
    container: Container,
) -> None:
    status = Path(f"/proc/{container.process.pid}/status").read_text()

    assert f"Uid:\t{sandbox.ACCOUNT}\t{sandbox.ACCOUNT}\t" in status
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert (container.data / "streams.db").is_file()
    writes = "import sys; open(sys.argv[1], 'w')"
    assert container.run("-c", writes, str(container.data / "written")) == 0
    for folder in (container.data.parent / "app", Path("/var/tmp"), Path.home(), Path("/tmp")):
        assert container.run("-c", writes, str(folder / "written")) != 0, folder


def test_the_image_s_other_commands_work_there(container: Container) -> None:
    assert container.run("-m", "streaming", "settings", "--check") == 0


def test_sigterm_ends_the_image_s_process_itself_and_then_it_is_unhealthy() -> None:
    with running() as container:
        os.kill(container.process.pid, signal.SIGTERM)
        # Docker is told to wait this long; with no stream open it is gone at once.
        assert container.process.wait(timeout=30) == 0, container.log_text()[-4000:]
        assert container.check_health() == 1


def test_the_sandbox_of_these_tests_ends_with_what_its_program_says() -> None:
    with Sandbox() as made:
        assert made.run([sandbox.interpreter(), "-c", "raise SystemExit(7)"], dict(os.environ)) == 7
        assert not (made.app / "written").exists()
