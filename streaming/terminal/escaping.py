"""What a model says must not control a terminal."""

import re
from typing import Any

import msgspec

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What JSON lets pass as it is, and what ends a line for some programs.
_CONTROL_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029]")


def visible(text: str) -> str:
    r"""Return the text with its control characters written out, except newline and tab.

    >>> visible("a\x1b[2Jb\tc")
    'a\\x1b[2Jb\tc'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def json_line(value: Any) -> str:
    r"""Return one line of JSON without a control character in it.

    >>> json_line({"text": "a\x9bb"})
    '{"text":"a\\u009bb"}'
    """
    text = msgspec.json.encode(value).decode()
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
