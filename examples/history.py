"""A chat that remembers what was said in its thread, also after a restart.

RUNNABLES="history=examples.history:chain" make run

    curl -N "localhost:8000/stream?source=history&thread=t1&prompt=I+am+Ana"
    curl -N "localhost:8000/stream?source=history&thread=t1&prompt=Who+am+I"

The turns are kept in SQLite, one row each. A turn is written when its answer is
whole: one that was cut off or cancelled was never said. Without a thread
nothing is remembered.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from langchain_core.messages import (
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableConfig, RunnableLambda
from msgspec import json

from streaming.models import chat_model

FILE = os.environ.get("HISTORY_FILE", "history.db")
TURNS = 20
"""How many of the last turns the model is told."""

answer = (
    ChatPromptTemplate.from_messages(
        [("system", "You are a helpful colleague."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    | chat_model()
)


def chat(question: str, config: RunnableConfig) -> Iterator[AIMessageChunk]:
    thread = config.get("configurable", {}).get("thread_id", "")
    said = None
    for chunk in answer.stream({"question": question, "history": remembered(thread)}, config):
        said = chunk if said is None else said + chunk
        yield chunk
    if thread and said is not None:
        remember(thread, [HumanMessage(question), said])


def remembered(thread: str) -> list[BaseMessage]:
    with closing(_connect()) as db:
        rows = db.execute(
            "SELECT messages FROM turns WHERE thread = ? ORDER BY id DESC LIMIT ?", (thread, TURNS)
        ).fetchall()
    return [message for row in reversed(rows) for message in messages_from_dict(json.decode(row[0]))]


def remember(thread: str, turn: list[BaseMessage]) -> None:
    with closing(_connect()) as db, db:
        db.execute(
            "INSERT INTO turns (thread, messages) VALUES (?, ?)",
            (thread, json.encode(messages_to_dict(turn))),
        )


def _connect() -> sqlite3.Connection:
    # One for each call: cheap, and right for any number of greenlets and workers.
    db = sqlite3.connect(FILE, timeout=10)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, thread TEXT, messages BLOB)")
    db.execute("CREATE INDEX IF NOT EXISTS turns_by_thread ON turns (thread, id)")
    return db


chain = RunnableLambda(chat)
