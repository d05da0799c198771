"""Markdown under arbitrary text: it never raises; no script, handler or strange address comes out."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from streaming.web._markdown import render
from tests.fuzzing import TEXTS, fuzzed

FRAGMENTS = st.sampled_from(
    [
        *("# ", "> ", "- ", "1. ", "* ", "```", "```js\n", "~~~", "`", "$", "$$", "\\(", "\\)", "\\[", "\\]"),
        *("[a](", "](", "](javascript:alert(1))", "![](data:text/html,x)", "[x]: javascript:x\n", "[^1]"),
        *("<script>", "<img src=x onerror=alert(1)>", "<a href='javascript:x'>", "</", "<!--", "-->"),
        *(
            "&lt;",
            "&#106;",
            "&",
            "<",
            ">",
            '"',
            "'",
            "(",
            ")",
            "[",
            "]",
            "!",
            "_",
            "__",
            "**",
            "\\",
            "x",
            " ",
        ),
        *("https://a.b/c", "http://", "mailto:a@b", "www.a.b", "//a.b", "\n", "\n\n", "    ", "\t"),
        *("|", ":---", "| a | b |\n|---|---|\n", "\0", "\u202e", "\x85", "\ud800"),
    ]
)
DOCUMENTS = st.one_of(st.lists(FRAGMENTS, max_size=30).map("".join), st.text(max_size=60), TEXTS)
TAGS = {
    *"p br strong em s code pre h3 h4 h5 h6 ul ol li blockquote hr".split(),
    *"table thead tbody tr th td a img span div".split(),
}
ATTRIBUTES = set("class href rel target title src alt start tabindex role aria-label".split())


class Looker(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            if name == "href":
                assert re.match(r"(https?://|mailto:)", value or "", re.IGNORECASE), value
            if name == "src":
                assert (value or "").lower().startswith("data:image/"), value

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


@fuzzed(150)
@given(DOCUMENTS)
def test_any_text_becomes_harmless_html(text: str) -> None:
    Looker().feed(render(text))
