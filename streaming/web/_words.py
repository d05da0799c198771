"""What the page says about a run: the same words from the server and from its script."""

import math
from typing import Any, NamedTuple

from streaming.errors import ErrorInfo
from streaming.events import Metrics


class Ending(NamedTuple):
    """How a run stands: ``busy``, ``done``, ``stopped``, ``interrupted`` or ``error``."""

    state: str
    words: str = ""
    hint: str = ""
    """What the reader can do."""


GONE = ("not_found", "stream_lost", "stream_expired")
"""Errors that stand for an answer nobody has any more."""
WORDS: dict[str, Any] = {
    "gone": GONE,
    "doing": {
        "asking": ["waiting", "Asking", ""],
        "queued": ["waiting", "Waiting for a free place", ""],
        "connecting": ["waiting", "Connecting to the model", ""],
        "thinking": ["thinking", "Thinking", ""],
        "writing": ["writing", "Writing", ""],
        "tool": ["thinking", "Using a tool", ""],
        "retrying": ["retrying", "The model did not answer: retrying", ""],
        "fallback": ["retrying", "Asking another model", ""],
        "stalled": ["stalled", "The model is silent", "You can wait, or stop it and try again."],
        "stopping": ["waiting", "Stopping", ""],
        "reconnecting": [
            "reconnecting",
            "Connection lost, reconnecting",
            "Nothing is lost: it goes on by itself.",
        ],
        "polling": [
            "polling",
            "This network holds streams back: polling",
            "The text comes in larger pieces.",
        ],
        "signed-out": [
            "reconnecting",
            "Signed out",
            "The text so far is kept. Sign in again, and it goes on.",
        ],
    },
    "finished": {
        "cancelled": ["stopped", "Stopped.", "The text so far is kept."],
        "length": ["done", "The answer reached its length limit.", "Ask it to go on."],
        "content_filter": ["done", "Ended by the model's content filter.", ""],
    },
    "interrupted": "Interrupted",
    "error": "Error",
    "retryable": "Trying again may help.",
    "final": "Trying the same again will hardly help.",
    "kept": "The text so far is kept.",
    "again": "Ask it again to have it answered anew.",
    "unverified": "The text may have gaps: its checksum differs.",
}
"""``doing``: what a run does, as [how it looks, words, hint]; ``finished``: reasons to tell of."""
BUSY = Ending("busy", "The answer is being written")


def ending(state: str, finish_reason: str | None, error: ErrorInfo | None) -> Ending:
    """Return what to say of a run in ``state``; ``saying.js`` does the same.

    >>> ending("completed", "stop", None)
    Ending(state='done', words='', hint='')
    """
    if error and error.type in GONE:
        return Ending("gone", f"{error.message[:1].upper()}{error.message[1:]}.", WORDS["again"])
    if error:
        kind = "interrupted" if state == "interrupted" else "error"
        hint = WORDS["retryable"] if error.retryable else WORDS["final"]
        kept = f" {WORDS['kept']}" if error.partial else ""
        return Ending(kind, f"{WORDS[kind]}: {error.message}.", f"{hint}{kept}")
    if finish_reason is None:
        return BUSY
    return Ending(*WORDS["finished"].get(finish_reason, ("done", "", "")))


def numbers(metrics: Metrics | None) -> str:
    """Return the metrics on one line.

    >>> numbers(Metrics(12, 2.04, 5.9, 310.4))
    '12 tokens · 2.0 s · 5.9 tokens/s · first after 310 ms'
    """
    if metrics is None:
        return ""
    about = "about " if metrics.estimated else ""
    said = [f"{about}{metrics.tokens} tokens", f"{_tenths(metrics.elapsed_seconds)} s"]
    if metrics.tokens_per_second:
        said.append(f"{_tenths(metrics.tokens_per_second)} tokens/s")
    if metrics.time_to_first_token_ms is not None:
        said.append(f"first after {math.floor(metrics.time_to_first_token_ms + 0.5)} ms")
    return " · ".join(said)


def _tenths(value: float) -> str:
    """Return it rounded as the script does: each language has its own way with halves.

    >>> _tenths(0.25)
    '0.3'
    """
    return f"{math.floor(value * 10 + 0.5) / 10:.1f}"
