"""Markdown of answers as HTML, for readers without scripts and for the first sight of a page.

The same rules as ``static/markdown_dialect.js``; a test compares what both make.
"""

import html
import re
from collections.abc import MutableMapping, Sequence
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.renderer import RendererHTML, RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

MOST_CHARACTERS = 200_000
"""Longer texts are shown as they were written: parsing them would hold up everybody else's stream."""

_SPACE = " \t\n"
_LANGUAGE = re.compile(r"[A-Za-z0-9+#._-]{1,30}")
_WEB = re.compile(
    r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(?=[/?#]|$)", re.IGNORECASE | re.ASCII
)
_MAIL = re.compile(r"mailto:([^?]+@[^?]+)", re.IGNORECASE | re.ASCII)
_DATA_IMAGE = re.compile(r"data:image/(?:gif|png|jpeg|webp);base64,[A-Za-z0-9+/=]+", re.IGNORECASE | re.ASCII)
_SAID_SCHEME = re.compile(r"^(?:https?://|mailto:)")
_UNSEEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x85\ud800-\udfff]")
"""Characters nobody sees, which parsers take differently, and halves of characters."""
_MOST_BRACKETS = 1000
"""What looks for links takes its time over each of these."""
_NONE_AFTER = {"$": -1, "\\)": -2, "\\]": -3}
"""Where a paragraph has no such closing mark any more, in the cache of its parser."""

_TAGS = set("p br strong em s code pre h3 h4 h5 h6 ul ol li blockquote hr".split()) | set(
    "table thead tbody tr th td a img span div".split()
)
_ATTRIBUTES = {
    "*": {"class"},
    "a": {"href", "rel", "target", "title", "class"},
    "img": {"src", "alt"},
    "ol": {"start"},
    "pre": {"tabindex"},
    "div": {"class", "tabindex", "role", "aria-label"},
}

Env = MutableMapping[str, Any]


def render(text: str) -> Markup:
    """Return the Markdown ``text`` as HTML that is safe to put into a page."""
    if len(text) > MOST_CHARACTERS:
        return Markup(f'<div class="plain">{html.escape(text)}</div>')
    return Markup(_sanitiser.clean(_parser.render(_UNSEEN.sub("\ufffd", text.replace("\r\n", "\n")))))


def language_of(info: str) -> str:
    """Return the language that a fence names, or "".

    >>> language_of(" python:app.py {1,3}")
    'python'
    """
    found = _LANGUAGE.match(info.strip())
    return found[0] if found else ""


# Math


def _math_block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Math on lines of its own goes to its closing mark or to the next empty line, and is not looked at."""
    if state.is_code_block(start_line):
        return False

    def text(line: int) -> str:
        return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()

    first = text(start_line)
    close = {"$$": "$$", "\\[": "\\]"}.get(first[:2], "")
    if not close:
        return False
    closes_at = first.find(close, 2)
    if closes_at not in (-1, len(first) - 2):
        return False
    if silent:
        return True
    line = start_line + 1
    while (
        closes_at < 0
        and line < end_line
        and not state.isEmpty(line)
        and state.sCount[line] >= state.blkIndent
    ):
        line += 1
        if text(line - 1).endswith(close):
            break
    token = state.push("math_block", "div", 0)
    token.content = state.getLines(start_line, line, state.blkIndent, False).strip()
    token.map = [start_line, line]
    state.line = line
    return True


def _math_inline(state: StateInline, silent: bool) -> bool:
    character = state.src[state.pos]
    if character == "$":
        end = _after_dollars(state)
    elif character == "\\":
        end = _after_bracket(state)
    else:
        return False
    if end < 0:
        return False
    if not silent:
        state.push("math_inline", "span", 0).content = state.src[state.pos : end]
    state.pos = end
    return True


def _after_bracket(state: StateInline) -> int:
    close = {"(": "\\)", "[": "\\]"}.get(state.src[state.pos + 1 : state.pos + 2])
    if not close or state.cache.get(_NONE_AFTER[close], state.pos + 1) <= state.pos:
        return -1
    at = state.src.find(close, state.pos + 2)
    if at < 0:
        state.cache[_NONE_AFTER[close]] = state.pos
    return -1 if at < 0 or at + 2 > state.posMax or at == state.pos + 2 else at + 2


def _after_dollars(state: StateInline) -> int:
    """As Pandoc: no space inside the dollars, no digit after them; nor a letter or digit before them."""
    src, pos, end = state.src, state.pos, state.posMax
    if (pos and _is_word_character(src[pos - 1])) or state.cache.get(_NONE_AFTER["$"], pos + 1) <= pos:
        return -1
    mark = "$$" if src[pos + 1 : pos + 2] == "$" else "$"
    start = pos + len(mark)
    if start >= end or src[start] in _SPACE:
        return -1
    at = start
    while at < end:
        if src[at] == "\\":
            at += 1
        elif src.startswith(mark, at) and at > start:
            after = at + len(mark)
            if after <= end and src[at - 1] not in _SPACE and not "0" <= src[after : after + 1] <= "9":
                return after
        at += 1
    # Many lone dollars must not each look through the rest of a long paragraph.
    if end == len(src) and mark == "$":
        state.cache[_NONE_AFTER["$"]] = pos
    return -1


def _is_word_character(character: str) -> bool:
    return character.isascii() and character.isalnum()


# What is shown of the tokens


def _leave_brackets(state: StateCore) -> None:
    """A paragraph of nothing but brackets is shown as it is."""
    for token in state.tokens:
        if token.type == "inline" and token.content.count("[") > _MOST_BRACKETS:
            token.children = [Token("text", "", 0, content=token.content)]
            token.content = ""


def _dress(state: StateCore) -> None:
    for token in state.tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        elif token.type.startswith("paragraph_"):
            # Tight or not shows only in the distance between items, which CSS sets.
            token.hidden = False
        elif token.type in ("th_open", "td_open") and token.attrs:
            token.attrs = {"class": f"align-{str(token.attrs['style']).split(':')[1]}"}
        elif token.type == "inline":
            token.children = _dressed(token.children or [], state)


def _dressed(children: Sequence[Token], state: StateCore) -> list[Token]:
    shown: list[Token] = []
    link: tuple[str, str] | None = None
    is_in_link = False
    text = ""
    for token in children:
        if token.type == "link_open":
            is_in_link, text = True, ""
            link = _destination_of(str(token.attrs["href"]))
            if link:
                shown.append(_opening(token, link[0]))
        elif token.type == "link_close":
            if link:
                shown += [token, *_host_of(link[1], text)]
            is_in_link, link = False, None
        elif token.type == "image":
            alt = _renderer.renderInlineAsText(token.children or [], state.md.options, state.env)
            text += alt
            shown += _image(token, alt, is_in_link)
        else:
            text += " " if token.type.endswith("break") else token.content
            shown.append(token)
    return shown


def _image(token: Token, alt: str, is_in_link: bool) -> list[Token]:
    """An image of another host would tell it who reads: there is a link in its place."""
    source = str(token.attrs["src"])
    if _DATA_IMAGE.fullmatch(source):
        token.attrs = {"src": source, "alt": ""}
        return [token]
    label = Token("text", "", 0, content=alt or "Image")
    link = None if is_in_link else _destination_of(source)
    if not link:
        return [label]
    opening = _opening(Token("link_open", "a", 1), link[0])
    return [opening, label, Token("link_close", "a", -1), *_host_of(link[1], label.content)]


def _opening(token: Token, href: str) -> Token:
    title = token.attrs.get("title")
    token.attrs = {"href": href, "rel": "noopener noreferrer nofollow ugc", "target": "_blank"}
    if title:
        token.attrs["title"] = title
    return token


def _destination_of(href: str) -> tuple[str, str] | None:
    """Return where a link leads that may be one, and its host: pages of the web, addresses to write to."""
    if web := _WEB.match(href):
        return href, (web[1] + (web[2] or "")).lower()
    if mail := _MAIL.match(href):
        return href, mail[1].lower()
    return None


def _host_of(host: str, text: str) -> list[Token]:
    said = (
        _SAID_SCHEME.sub("", text.strip().lower(), count=1)
        if _SAID_SCHEME.match(text.strip().lower())
        else ""
    )
    said = said or text.strip().lower()
    if said.startswith(host) and (len(said) == len(host) or said[len(host)] in "/?#"):
        return []
    return [Token("host", "span", 0, content=host)]


# HTML


def _code(content: str, language: str) -> str:
    name = f' class="language-{language}"' if language else ""
    head = f'<div class="code-head"><span class="language">{language}</span></div>'
    return (
        f'<div class="code">{head}<pre tabindex="0"><code{name}>{html.escape(content)}</code></pre></div>\n'
    )


Tokens = Sequence[Token]


def _write_math_block(
    _self: RendererProtocol, tokens: Tokens, at: int, _options: OptionsDict, _env: Env
) -> str:
    return f'<div class="math">{html.escape(tokens[at].content)}</div>\n'


def _write_math(_self: RendererProtocol, tokens: Tokens, at: int, _options: OptionsDict, _env: Env) -> str:
    return f'<span class="math">{html.escape(tokens[at].content)}</span>'


def _write_host(_self: RendererProtocol, tokens: Tokens, at: int, _options: OptionsDict, _env: Env) -> str:
    return f' <span class="host">({html.escape(tokens[at].content)})</span>'


def _write_fence(_self: RendererProtocol, tokens: Tokens, at: int, _options: OptionsDict, _env: Env) -> str:
    return _code(tokens[at].content, language_of(unescapeAll(tokens[at].info)))


def _write_code(_self: RendererProtocol, tokens: Tokens, at: int, _options: OptionsDict, _env: Env) -> str:
    return _code(tokens[at].content, "")


def _open_table(_self: RendererProtocol, _tokens: Tokens, _at: int, _options: OptionsDict, _env: Env) -> str:
    return '<div class="table" tabindex="0" role="group" aria-label="Table"><table>\n'


def _close_table(_self: RendererProtocol, _tokens: Tokens, _at: int, _options: OptionsDict, _env: Env) -> str:
    return "</table></div>\n"


def _create_parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"breaks": True, "html": False, "linkify": False, "typographer": False})
    parser.block.ruler.before(
        "fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.inline.ruler.before("escape", "math_inline", _math_inline)
    parser.core.ruler.before("inline", "leave_brackets", _leave_brackets)
    parser.core.ruler.push("dress", _dress)
    for name, rule in {
        "math_block": _write_math_block,
        "math_inline": _write_math,
        "host": _write_host,
        "fence": _write_fence,
        "code_block": _write_code,
        "table_open": _open_table,
        "table_close": _close_table,
    }.items():
        parser.add_render_rule(name, rule)
    return parser


def _only_images(tag: str, attribute: str, value: str) -> str | None:
    is_data = value.lower().startswith("data:")
    if attribute in ("href", "src"):
        return value if is_data == (tag == "img") else None
    return value


_renderer = RendererHTML()
_parser = _create_parser()
_sanitiser = nh3.Cleaner(
    tags=_TAGS,
    attributes=_ATTRIBUTES,
    attribute_filter=_only_images,
    url_schemes={"http", "https", "mailto", "data"},
    link_rel=None,
)
