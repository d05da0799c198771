"""The page of docs/chatkit.md, with a stand-in for the vendor's component, which only its servers have."""

import re
from pathlib import Path

from playwright.sync_api import Browser, Route, expect

from tests.live.service import Service

DOCS = Path(__file__).parents[2] / "docs" / "chatkit.md"
COMPONENT = """
customElements.define("openai-chatkit", class extends HTMLElement {
  async setOptions({ api }) {
    const input = { content: [{ type: "input_text", text: "hi" }], attachments: [], inference_options: {} };
    const body = JSON.stringify({ type: "threads.create", params: { input } });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(api.url, { method: "POST", headers, body });
    const events = (await answer.text()).split("\\n").filter((line) => line.startsWith("data: "));
    const last = JSON.parse(events.at(-1).slice(6));
    this.textContent = last.item.content[0].text;
  }
});
"""


def test_the_page_of_the_docs_is_answered(demo: Service, browser: Browser) -> None:
    (snippet,) = re.findall(r"```html\n(.*?)```", DOCS.read_text(), re.DOTALL)
    source = re.search(r'<script src="(https://[^"]+)" async>', snippet)
    assert source

    def component(route: Route) -> None:
        route.fulfill(content_type="text/javascript", body=COMPONENT)

    context = browser.new_context()
    page = context.new_page()
    page.route(source[1], component)
    at = f"{demo.url}/a-page-of-yours"
    page.route(at, lambda route: route.fulfill(content_type="text/html", body=snippet))
    page.goto(at)
    expect(page.locator("openai-chatkit")).to_contain_text("demo model", timeout=30_000)
    context.close()
