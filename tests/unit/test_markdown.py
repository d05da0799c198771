"""The server's Markdown, and the libraries that browsers are given."""

import re
import time
from pathlib import Path

import pytest

from streaming.web._markdown import MOST_CHARACTERS, render

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "tests/clients_node/node_modules"
VENDORED = {
    "markdown-it.js": "markdown-it/dist/browser/markdown-it.esm.min.mjs",
    "dompurify.js": "dompurify/dist/purify.es.mjs",
    "highlight.js": "@highlightjs/cdn-assets/es/highlight.min.js",
}


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_file_is_its_pinned_package_s(name: str) -> None:
    original = PACKAGES / VENDORED[name]
    if not original.exists():
        pytest.skip("the packages for Node are not installed: make node-clients")
    expected = re.sub(rb"(?m)^//# sourceMappingURL=.*\n?", b"", original.read_bytes())

    assert (ROOT / "static/vendor" / name).read_bytes() == expected


def test_versions_and_licences_are_told_as_they_are_pinned() -> None:
    told = (ROOT / "static/vendor/README.md").read_text()
    pinned = (ROOT / "tests/clients_node/package.json").read_text()

    for package in ("markdown-it", "dompurify", "@highlightjs/cdn-assets"):
        version = re.search(rf'"{package}": "([0-9.]+)"', pinned)
        assert version
        assert version[1] in told
    for name in VENDORED:
        assert (ROOT / "static/vendor" / name).with_suffix(".LICENSE").stat().st_size > 500


def test_html_is_shown_and_not_obeyed() -> None:
    assert "<script" not in render("<script>boom()</script>")
    assert "&lt;script&gt;" in render("<script>boom()</script>")


@pytest.mark.parametrize("href", ["javascript:x()", "/relative", "//host/x", "data:text/html,x", "ftp://a.b"])
def test_a_link_to_anything_but_the_web_and_mail_is_no_link(href: str) -> None:
    assert "<a" not in render(f"[text]({href})")
    assert "text" in render(f"[text]({href})")


def test_headings_begin_at_the_third_level() -> None:
    assert re.findall(r"<h(\d)", render("# a\n## b\n### c\n#### d\n##### e")) == list("34566")


def test_math_is_left_as_it_was_written() -> None:
    assert "$a_1 * b_2 * c$" in render("so $a_1 * b_2 * c$ holds")
    assert "$$\na\n= b\n- c\n$$" in render("$$\na\n= b\n- c\n$$")
    assert "class" not in render("it costs $5, or $6")


@pytest.mark.parametrize(
    "text", ["\ud83d", "a\0b\x7f", "\r\r\n", "[" * 5000, "> " * 3000, "*a " * 5000, "$" * 9999]
)
def test_no_text_is_too_odd(text: str) -> None:
    assert render(text) is not None


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "*a",
        "`a",
        "$a ",
        "<",
        "![",
        "\\(",
        "a_b ",
        "> ",
        "- ",
        "|a",
        "[a](",
        "\n- a",
        "\n|a|\n|-|",
        "&",
        "~~a",
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    began = time.process_time()
    render(unit * (20_000 // len(unit)))

    assert time.process_time() - began < 2


def test_a_text_too_long_to_parse_is_shown_as_it_is() -> None:
    text = "*a* <b>\n" * (MOST_CHARACTERS // 8 + 1)

    assert render(text).startswith('<div class="plain">*a* &lt;b&gt;\n')
