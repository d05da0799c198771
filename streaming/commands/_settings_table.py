"""``docs/settings.md``: every setting in tables, one for each section."""

from itertools import groupby

from streaming.commands._described import Described

_HEAD = """\
# Settings

<!-- Made by `make settings` from streaming/settings.py. Do not edit it here. -->

Environment variables, read once at start. An empty one counts as not set. A value that cannot be used
stops the start with a sentence that names it. What this environment says, with secrets masked, and nothing started:

```
python -m streaming settings --check
```

Yes or no: `1`, `true`, `yes`, `on` and `0`, `false`, `no`, `off`. Choices may be written in any case.
A variable marked *secret* may hold one: it is never logged or shown.
"""
# ruff: noqa: E501
_TAIL = """\
## Of others

| variable | whose | |
| --- | --- | --- |
| the names in the fields `key` of the file in `UPSTREAMS` | yours | the keys of its upstreams |
| `GUNICORN_CMD_ARGS` | gunicorn | more of its command line, such as `--bind` |
| `TIKTOKEN_CACHE_DIR` | tiktoken | where its tables lie; nothing is downloaded by this service |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | OpenSSL | certificates to trust instead of the system's |
| `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID` | the OpenAI SDK | sent to the one upstream; to none of a file in `UPSTREAMS` |
"""


def markdown(settings: list[Described]) -> str:
    """Return the whole document."""
    parts = [_HEAD]
    for section, members in groupby(settings, key=lambda setting: setting.section):
        rows = "\n".join(map(_row, members))
        parts.append(f"## {section}\n\n| variable | default | value | |\n| --- | --- | --- | --- |\n{rows}\n")
    return "\n".join([*parts, _TAIL])


def _row(setting: Described) -> str:
    first, comma, _ = setting.default.partition(",")
    default = f"`{first}{comma and ',…'}`" if first else ""
    if setting.kind == "bytes" and (size := _readable_bytes(setting.default)):
        default += f" ({size})"
    kind = f"{setting.kind}, *secret*" if setting.is_secret else setting.kind
    explanation = setting.explanation.replace("``", "`").replace("|", "\\|")
    return f"| `{setting.variable}` | {default} | {kind} | {explanation} |"


def _readable_bytes(text: str) -> str:
    """
    >>> _readable_bytes("8388608"), _readable_bytes("65536"), _readable_bytes("1000")
    ('8 MiB', '64 KiB', '')
    """
    number = int(text)
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number and number % size == 0:
            return f"{number // size} {unit}"
    return ""
