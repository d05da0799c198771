"""Tiktoken's tables, where they are on this machine already. Nothing is ever fetched.

Tiktoken's own loader downloads a table that is missing, and also one whose
contents are not what it expects; so the file is found, checked and read here,
by the names that loader uses. Source: tiktoken 0.14, ``load.py`` (names of
files) and ``tiktoken_ext/openai_public.py`` (addresses, digests, patterns).
"""

import base64
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tiktoken import Encoding

logger = logging.getLogger(__name__)


class Table(NamedTuple):
    url: str
    """It gives the file its name; nobody goes there."""
    sha256: str
    pattern: str
    """What cuts a text into the words that are then looked up."""


_CASELESS = r"\p{Lm}\p{Lo}\p{M}"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PUBLIC = "https://openaipublic.blob.core.windows.net/encodings"

TABLES = {
    "o200k_base": Table(
        f"{_PUBLIC}/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            [
                rf"{_WORD}[\p{{Lu}}\p{{Lt}}{_CASELESS}]*[\p{{Ll}}{_CASELESS}]+{_CONTRACTION}",
                rf"{_WORD}[\p{{Lu}}\p{{Lt}}{_CASELESS}]+[\p{{Ll}}{_CASELESS}]*{_CONTRACTION}",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            ]
        ),
    ),
    "cl100k_base": Table(
        f"{_PUBLIC}/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s",
    ),
}

DEFAULT = "o200k_base"
_OLDER_MODELS = ("gpt-4-", "gpt-3.5", "gpt-35-", "text-embedding-", "davinci-002", "babbage-002")


def table_of(model: str) -> str:
    """Return the table of a model; of one nobody knows, the newest.

    >>> table_of("gpt-4"), table_of("gpt-4o"), table_of("openai/gpt-4.1-mini"), table_of("llama3.2")
    ('cl100k_base', 'o200k_base', 'o200k_base', 'o200k_base')
    """
    name = model.rpartition("/")[2].removeprefix("ft:")
    older = name == "gpt-4" or name.startswith((*_OLDER_MODELS, "gpt-4:"))
    return "cl100k_base" if older else DEFAULT


def cache_directory() -> Path | None:
    """Return where tiktoken keeps its tables; ``None`` where it is told not to."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if name in os.environ:
            return Path(os.environ[name]) if os.environ[name] else None
    return Path(tempfile.gettempdir(), "data-gym-cache")


class Tables:
    """The tables in one directory, each looked for once in the life of this process."""

    def __init__(self, directory: Path | None, tables: Mapping[str, Table] = TABLES) -> None:
        self._tables = tables
        self._paths = {name: _path(directory, table) for name, table in tables.items()}
        self._loaded: dict[str, Encoding] = {}

    def has(self, name: str) -> bool:
        return self._paths[name] is not None

    def is_loaded(self, name: str) -> bool:
        return name in self._loaded

    def load(self, name: str) -> "Encoding | None":
        """Return the encoding; ``None`` where its table is not here, or not what it should be.

        The first time takes 0.4 s of CPU. Not to be called by two threads at once.
        """
        path = self._paths[name]
        if path is not None and name not in self._loaded:
            try:
                self._loaded[name] = _read(name, path, self._tables[name])
            except (OSError, ValueError) as error:
                self._paths[name] = None
                logger.warning("tokens are estimated", extra={"table": name, "why": str(error)})
        return self._loaded.get(name)


def _path(directory: Path | None, table: Table) -> Path | None:
    if directory is None:
        return None
    # Not a matter of security: it is how tiktoken names the file.
    path = directory / hashlib.sha1(table.url.encode(), usedforsecurity=False).hexdigest()
    return path if path.is_file() else None


def _read(name: str, path: Path, table: Table) -> "Encoding":
    contents = path.read_bytes()
    # The directory may be one that everybody on this machine can write to.
    if hashlib.sha256(contents).hexdigest() != table.sha256:
        raise ValueError(f"{path} is not the table {name}")
    ranks = {}
    for line in contents.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    from tiktoken import Encoding  # only here: most services never count

    return Encoding(name, pat_str=table.pattern, mergeable_ranks=ranks, special_tokens={})
