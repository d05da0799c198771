"""``/metrics`` of a whole server: right over two workers, also when one of them is killed."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.service import PATIENCE_SECONDS, Service, free_port, kill_processes, request, wait_until

Series = dict[str, float]
SHORT = {"params": {"max_tokens": 12}}


def scrape(port: int, **headers: str) -> Series:
    """Return every number by its name and labels, as they are written."""
    answer = request(port, "GET", "/metrics", headers=headers)
    assert answer.status == 200, answer
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def total(series: Series, name: str, *labels: str) -> float:
    """Return the sum of all series of a metric that have these labels."""
    return sum(
        value
        for at, value in series.items()
        if re.fullmatch(rf"{name}(\{{.*\}})?", at) and all(label in at for label in labels)
    )


def workers_of(service: Service) -> list[int]:
    """Return the process ids of the workers that live."""
    children = Path(f"/proc/{service._process.pid}/task/{service._process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def metrics_directory(worker: int) -> Path:
    """Return where a worker shares its numbers: the file is mapped into its memory."""
    maps = Path(f"/proc/{worker}/maps").read_text().splitlines()
    (directory,) = {Path(line.split()[-1]).parent for line in maps if line.endswith(".cells")}
    return directory


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    demo = {"OPENAI_BASE_URL": None, "OPENAI_API_KEY": None, "MODEL": None, "DEMO_TOKENS_PER_SECOND": "0"}
    made = Service(tmp_path, "", workers=2, environment=demo)
    yield made
    made.stop()


def test_each_of_300_streams_over_two_workers_is_counted_once(service: Service) -> None:
    with ThreadPoolExecutor(10) as pool:
        for answer in pool.map(
            lambda place: service.request("POST", "/streams", SHORT | {"prompt": f"say {place}"}), range(300)
        ):
            assert answer.status in (200, 201)

    ended = wait_until(
        lambda: (
            found
            if total(found := scrape(service.port), "sluice_streams_ended_total") >= 300
            and total(found, "sluice_streams_running") == 0
            else None
        ),
        60,
        "all streams are counted as ended",
    )
    assert total(ended, "sluice_streams_started_total") == 300
    assert total(ended, "sluice_streams_ended_total", 'state="completed"') == 300
    assert total(ended, "sluice_first_token_seconds_count") == 300
    assert total(ended, "sluice_stream_seconds_count", 'source="chat"') == 300
    assert total(ended, "sluice_tokens_total", 'direction="out"') > 300
    assert total(ended, "sluice_http_requests_total", 'method="POST"', 'route="/streams"') == 300
    assert total(ended, "sluice_workers") == 2
    assert total(ended, "sluice_errors_total") == 0
    buckets = [value for name, value in ended.items() if name.startswith("sluice_token_gap_seconds_bucket")]
    assert buckets == sorted(buckets), "the buckets are not cumulative"
    assert buckets[-1] == total(ended, "sluice_token_gap_seconds_count") > 0


def test_what_a_killed_worker_counted_stays_and_what_it_was_doing_goes(tmp_path: Path) -> None:
    demo = {"OPENAI_BASE_URL": None, "OPENAI_API_KEY": None, "MODEL": None, "DEMO_TOKENS_PER_SECOND": "2"}
    service = Service(tmp_path, "", workers=2, environment=demo)
    try:
        for place in range(12):
            service.create(f"a long answer {place}", on_disconnect="continue")
        before = scrape(service.port)
        assert total(before, "sluice_streams_started_total") == 12
        wait_until(
            lambda: total(scrape(service.port), "sluice_streams_running") == 12,
            PATIENCE_SECONDS,
            "all twelve are shown",
        )
        victim, other = workers_of(service)
        kill_processes(victim)

        after = wait_until(
            lambda: (
                found
                if total(found := scrape(service.port), "sluice_workers") == 2
                and total(found, "sluice_streams_ended_total", 'state="interrupted"')
                + total(found, "sluice_streams_running")
                == 12
                # The counters of one stream do not move in one moment.
                and total(found, "sluice_streams_ended_total", 'state="interrupted"')
                == total(found, "sluice_streams_taken_over_total")
                == total(found, "sluice_errors_total", 'type="interrupted"')
                else None
            ),
            30,
            "the streams of the killed worker are ended by another one",
        )
        assert total(after, "sluice_streams_started_total") == 12, "what the dead counted is lost"

        kill_processes(other)
        wait_until(
            lambda: total(scrape(service.port), "sluice_streams_ended_total") == 12, 30, "all are ended"
        )
        last = scrape(service.port)
        assert total(last, "sluice_streams_started_total") == 12
        assert total(last, "sluice_streams_running") == 0
        directory = metrics_directory(workers_of(service)[0])
        wait_until(
            lambda: len(list(directory.glob("*.cells"))) == 3,
            PATIENCE_SECONDS,
            "two live, one for all the dead",
        )
        assert (directory / "gone.cells").exists()
    finally:
        service.stop()


def test_metrics_with_a_port_of_their_own_are_nowhere_else(tmp_path: Path) -> None:
    port = free_port()
    service = Service(tmp_path, "http://127.0.0.1:9/v1", environment={"METRICS_BIND": str(port)})
    try:
        assert total(scrape(port), "sluice_workers") == 1
        assert service.request("GET", "/metrics").status == 404
        forged = service.request("GET", "/metrics", headers={"Host": f"127.0.0.1:{port}"})
        assert forged.status == 404, "the Host header decides"
        for path in ("/", "/streams/st_x", "/v1/models", "/assets/x"):
            assert request(port, "GET", path).status == 404
        assert request(port, "POST", "/streams", {"prompt": "hello"}).status == 404
        assert request(port, "GET", "/healthz").status == 200
        assert request(port, "GET", "/readyz").status == 200
    finally:
        service.stop()


def test_metrics_with_a_token_are_shown_to_who_has_it(tmp_path: Path) -> None:
    service = Service(tmp_path, "http://127.0.0.1:9/v1", environment={"METRICS_TOKEN": "scrape-me-please"})
    try:
        assert total(scrape(service.port, Authorization="Bearer scrape-me-please"), "sluice_workers") == 1
        for authorization in ("", "Bearer wrong", "Bearer ", "Basic c2NyYXBlOm1l", "Bearer é"):
            headers = {"Authorization": authorization.encode("latin-1").decode("latin-1")}
            answer = service.request("GET", "/metrics", headers=headers)
            assert answer.status in (401, 404), authorization
            assert b"sluice_" not in answer.body
    finally:
        service.stop()


def test_a_server_that_ends_leaves_no_directory_behind(tmp_path: Path) -> None:
    service = Service(tmp_path, "http://127.0.0.1:9/v1")
    directory = metrics_directory(workers_of(service)[0])
    assert directory.is_dir()
    service.stop()
    assert not directory.exists()
