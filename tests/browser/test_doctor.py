"""The doctor's page: the same findings as the command's, from where it matters: a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.pages import LONG_SECONDS
from tests.live.nginx import Nginx
from tests.live.service import REPOSITORY, Service

AXE = REPOSITORY / "tests/clients_node/node_modules/axe-core/axe.min.js"
GOOD = """
    proxy_http_version 1.1;
    proxy_buffering off;
    client_max_body_size 17m;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
"""


def examine(tab: Page, url: str, seconds: float = 4) -> dict[str, str]:
    """Let the page examine; return the level of each finding about the way."""
    tab.goto(f"{url}/doctor")
    tab.evaluate(f"document.querySelector('#silence option').value = '{seconds}'")
    tab.get_by_label("Longest silence to try").select_option(str(seconds))
    tab.get_by_role("button", name="Examine").click()
    expect(tab.locator("#examine")).to_have_attribute("data-state", "done", timeout=LONG_SECONDS * 1000)
    return levels(tab, "#way")


def levels(tab: Page, list_: str) -> dict[str, str]:
    found: dict[str, str] = tab.evaluate(
        "list => Object.fromEntries([...document.querySelectorAll(`${list} .finding`)]"
        ".map(each => [each.dataset.code, each.dataset.level]))",
        list_,
    )
    return found


@pytest.fixture
def through(service: Service, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Return a function that puts nginx in front of the service and returns its address."""
    running: list[Nginx] = []

    def start(in_location: str) -> str:
        nginx = Nginx.with_directives(tmp_path / "nginx", service.port, in_location)
        running.append(nginx)
        nginx.__enter__()
        return nginx.url

    yield start
    for nginx in running:
        nginx.__exit__()


def test_without_a_proxy_all_is_well(tab: Page, service: Service) -> None:
    found = examine(tab, service.url)
    assert set(found.values()) == {"ok"}, found
    expected = {
        "buffering",
        "compression",
        "idle",
        "heartbeats",
        "websocket",
        "large_body",
        "beside",
        "clock",
    }
    assert found.keys() >= expected
    expect(tab.locator("#doing")).to_contain_text("Done:")
    # What the service knows of itself was in the page already.
    of_service = levels(tab, "#service")
    assert set(of_service.values()) == {"ok"}, of_service
    assert of_service.keys() >= {"server", "patching", "store", "files"}


def test_a_proxy_that_buffers_is_told_with_the_directive(tab: Page, through: Callable[[str], str]) -> None:
    url = through(
        GOOD.replace("1.1;", "1.0;").replace("buffering off", "buffering on")
        + "proxy_ignore_headers X-Accel-Buffering;"
    )
    found = examine(tab, url, 2)
    assert found["buffering"] == "fault", found
    change = tab.locator("[data-code=buffering] .changes")
    expect(change).to_contain_text("proxy_buffering off;")
    # The worst stands first.
    expect(tab.locator("#way .finding").first).to_have_attribute("data-level", "fault")


def test_a_silence_that_is_cut_is_told_with_its_length(tab: Page, through: Callable[[str], str]) -> None:
    found = examine(tab, through(GOOD + "proxy_read_timeout 3s;"), 8)
    assert found["idle_cut"] == "fault", found
    expect(tab.locator("[data-code=idle_cut]")).to_contain_text("proxy_read_timeout 1h;")
    assert found["heartbeats"] == "ok"


def test_a_service_that_has_gone_is_told(tab: Page, through: Callable[[str], str], service: Service) -> None:
    tab.goto(f"{service.url}/doctor")
    tab.route("**/doctor/ticks*", lambda route: route.abort())
    tab.get_by_role("button", name="Examine").click()
    expect(tab.get_by_role("alert")).to_contain_text("the service cannot be reached")
    expect(tab.locator("#examine")).to_have_attribute("data-state", "failed")
    # And it can be tried again.
    tab.unroute("**/doctor/ticks*")
    tab.get_by_role("button", name="Examine").click()
    expect(tab.locator("[data-code=buffering]")).to_be_visible(timeout=LONG_SECONDS * 1000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(
    new_context: Callable[..., BrowserContext], service: Service, scheme: str, width: int
) -> None:
    # axe is put into the page past its policy.
    screen = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    tab = new_context(**screen).new_page()
    examine(tab, service.url, 1)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate(f"{AXE.read_text()}; true")
    violations = tab.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))")
    assert violations == []


def test_without_javascript_it_says_what_to_do(plain_tab: Page, service: Service) -> None:
    plain_tab.goto(f"{service.url}/doctor")
    assert "Without JavaScript this page cannot listen" in plain_tab.inner_text("main")
    expect(plain_tab.get_by_role("button", name="Examine")).to_be_hidden()
    expect(plain_tab.locator("#service .finding")).not_to_have_count(0)
    expect(plain_tab.locator("pre")).to_contain_text("python -m streaming doctor http://127.0.0.1")
