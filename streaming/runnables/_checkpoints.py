"""Where graphs keep their threads: a checkpointer for each process, by the setting ``CHECKPOINTS_URL``.

``sqlite:///checkpoints.db`` serves all workers of one machine,
``postgresql://…`` several machines, where langgraph-checkpoint-postgres is
installed. A graph that was compiled with a checkpointer keeps its own.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.sqlite import SqliteSaver

from streaming import scope
from streaming.errors import SettingsError

T = TypeVar("T")
Saver = BaseCheckpointSaver[Any]

DEFAULT_URL = "sqlite:///checkpoints.db"
BUSY_SECONDS = 5.0
POSTGRES_CONNECTIONS = 10
OPEN_ATTEMPTS = 20

_opened: dict[tuple[int, str], Saver] = {}


def saver(url: str) -> Saver:
    """Return this process's checkpointer for ``url``. Raises `SettingsError`.

    Never shared with the process that this one was forked from: a SQLite
    connection that two processes use damages the file.
    """
    key = os.getpid(), url
    if key not in _opened:
        if url.startswith("sqlite:///") and url != "sqlite:///":
            _opened[key] = _open_sqlite(Path(url.removeprefix("sqlite:///")))
        elif url.startswith(("postgresql://", "postgres://")):
            _opened[key] = _open_postgres(url)
        else:
            raise SettingsError("CHECKPOINTS_URL: write sqlite:////absolute/path or postgresql://…")
    return _opened[key]


def _open_sqlite(path: Path) -> Saver:
    try:
        # Greenlets are no threads for SQLite, and the saver has a lock for them.
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
        # In WAL mode the death of a process loses nothing; a sync would stop all greenlets for milliseconds.
        connection.execute("PRAGMA synchronous=NORMAL")
        opened = SqliteSaver(connection)
        _patiently(opened.setup)
    except sqlite3.Error as error:
        raise SettingsError(f"CHECKPOINTS_URL: {path} cannot be opened: {error}") from error
    return opened


def _patiently(setup: Callable[[], None]) -> None:
    # Turning a new file to WAL mode fails at once, whatever the time-out, while another worker does it.
    for attempt in range(OPEN_ATTEMPTS):
        try:
            setup()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == OPEN_ATTEMPTS - 1:
                raise
            time.sleep(0.05)


def _open_postgres(url: str) -> Saver:
    try:
        postgres = import_module("langgraph.checkpoint.postgres")
        pools = import_module("psycopg_pool")
        rows = import_module("psycopg.rows")
    except ImportError:
        raise SettingsError(
            "CHECKPOINTS_URL: postgresql:// needs langgraph-checkpoint-postgres and psycopg[binary,pool]"
        ) from None
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}
    pool = pools.ConnectionPool(url, min_size=1, max_size=POSTGRES_CONNECTIONS, kwargs=options, open=True)
    opened: Saver = postgres.PostgresSaver(pool)
    opened.setup()  # type: ignore[attr-defined]
    return opened


def for_asyncio(inner: Saver) -> Saver:
    """Return a checkpointer that asynchronous graphs can use, as it is where it can be."""
    if "Sqlite" in (name := type(inner).__name__) or "Postgres" in name:
        return inner if name.startswith("Async") else _AsyncSaver(inner)
    return inner if type(inner).aput is not BaseCheckpointSaver.aput else _AsyncSaver(inner)


class _AsyncSaver(BaseCheckpointSaver[Any]):
    """The asynchronous half of a blocking saver: its calls go to the loop's executor."""

    def __init__(self, inner: Saver) -> None:
        super().__init__(serde=inner.serde)
        self._inner = inner

    @property
    def config_specs(self) -> list[Any]:
        return self._inner.config_specs

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._inner.get_next_version(current, channel)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._inner.get_tuple(config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await _aside(self._inner.get_tuple, config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await _aside(lambda: list(self._inner.list(config, **options))):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await _aside(self._inner.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await _aside(self._inner.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await _aside(self._inner.delete_thread, thread_id)

    async def aget_delta_channel_history(self, **options: Any) -> Any:
        return await _aside(lambda: self._inner.get_delta_channel_history(**options))


async def _aside(function: Callable[..., T], *arguments: Any) -> T:
    def call() -> T:
        # What is to be written is written, also of a run that was stopped meanwhile.
        with scope.entered(scope.Scope()):
            return function(*arguments)

    return await asyncio.get_running_loop().run_in_executor(None, call)
