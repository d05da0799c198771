"""Fixtures of the browser tests: the service as processes, and Chromium in front of it.

Every tab is watched: a script error, a breach of the content security policy
or a request to another host fails the test that opened it.
"""

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.live.cable import Cable
from tests.live.service import PATIENCE_SECONDS, Service, Upstream

StartService = Callable[..., Service]

LAN_HOST = "sluice.test"
"""A name of 127.0.0.1 for which the browser has no secure context, as for any other machine."""
# How long a test waits for what it expects to see. What is seen when is no claim of any of them.
expect.set_options(timeout=PATIENCE_SECONDS * 1000)
DEMO = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}


@pytest.fixture
def cable(service: Service) -> Iterator[Cable]:
    """A way to ``service`` that can be cut."""
    cable = Cable(service.port)
    yield cable
    cable.remove()


@pytest.fixture(scope="session", autouse=True)
def _real_threads() -> None:
    """Playwright has a loop of its own, which a patched interpreter would stop."""
    monkey = sys.modules.get("gevent.monkey")
    assert not (monkey and monkey.is_module_patched("socket")), "run the browser tests in their own pytest"


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The upstream of every service here that is not a demo."""
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="session")
def service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker, whose model plays what a test's prompt says."""
    service = Service(tmp_path_factory.mktemp("service"), upstream.base_url)
    yield service
    service.kill()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers with the demo model."""
    pace = {"DEMO_TOKENS_PER_SECOND": "600"}
    service = Service(tmp_path_factory.mktemp("demo"), "", workers=2, environment=DEMO | pace)
    yield service
    service.kill()


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with its examples and the demo model, as it is started without any setting."""
    directory = tmp_path_factory.mktemp("examples")
    kept = {
        "RUNNABLES": None,
        "CHECKPOINTS_URL": f"sqlite:///{directory / 'checkpoints.db'}",
        "SESSIONS_PATH": str(directory / "sessions.db"),
        "DEMO_TOKENS_PER_SECOND": "300",
    }
    service = Service(directory, "", environment=DEMO | kept)
    yield service
    service.kill()


@pytest.fixture
def start_service(upstream: Upstream, tmp_path: Path) -> Iterator[StartService]:
    """Start services for one test, all on one event log: ``start_service(**Service's arguments)``."""
    started: list[Service] = []

    def start(**arguments: object) -> Service:
        started.append(Service(tmp_path, upstream.base_url, **arguments))
        return started[-1]

    yield start
    for service in started:
        service.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, for the whole run."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "the browser tests need Chromium: install it, or name its program in CHROMIUM"
    options = ["--no-sandbox", f"--host-resolver-rules=MAP {LAN_HOST} 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def new_context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Open browser contexts with Playwright's options; they are watched until the test ends."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_context(**options: object) -> BrowserContext:
        context = browser.new_context(**options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        context.on("weberror", lambda event: faults.append(f"script error: {event.error}"))
        context.on("console", lambda message: faults.extend(_breaches(message.text)))
        context.on("request", lambda request: faults.extend(_strangers(request.url)))
        contexts.append(context)
        return context

    yield open_context
    for context in contexts:
        context.close()
    assert not faults, faults


@pytest.fixture
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    """One browser context."""
    return new_context()


@pytest.fixture
def tab(context: BrowserContext) -> Page:
    """One empty tab."""
    return context.new_page()


@pytest.fixture
def second_tab(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab in a browser context of its own, as on another device."""
    return new_context().new_page()


@pytest.fixture
def plain_tab(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab without JavaScript."""
    return new_context(java_script_enabled=False).new_page()


@pytest.fixture
def token() -> str:
    """A name nobody else uses in the upstream's log."""
    return f"page-{next(_numbers)}"


_numbers = itertools.count(1)


def _breaches(text: str) -> list[str]:
    return [text] if "Content Security Policy" in text or "Refused to" in text else []


def _strangers(url: str) -> list[str]:
    parts = urlsplit(url)
    ours = parts.scheme in ("data", "about") or parts.hostname in ("127.0.0.1", LAN_HOST)
    return [] if ours else [f"a request to another host: {url}"]
