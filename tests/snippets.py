"""The examples of the documents, as a reader copies them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def snippet(document: str, kind: str, port: int) -> str:
    """Return the one block of ``document`` that begins with ```` ```<kind> ````, for a service on ``port``.

    The documents' own address is ``localhost:8000``.
    """
    text = (REPOSITORY / document).read_text()
    found = re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{document} has {len(found)} blocks that begin with ```{kind}"
    return str(found[0]).replace("localhost:8000", f"127.0.0.1:{port}")
