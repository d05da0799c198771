"""Usage by the names of chat completions, from whoever counted."""

from typing import Any

from streaming.events import Done, Error

JSON = dict[str, Any]


def chat_usage(usage: JSON) -> JSON:
    """Return usage by the names of chat completions; OpenAI's Responses have others."""
    if "input_tokens" not in usage or "prompt_tokens" in usage:
        return usage
    asked, said = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    found: JSON = {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": usage.get("total_tokens", asked + said),
    }
    if details := usage.get("input_tokens_details"):
        found["prompt_tokens_details"] = details
    if details := usage.get("output_tokens_details"):
        found["completion_tokens_details"] = details
    return found


def estimated_usage(last: Done | Error) -> JSON | None:
    """Return our own count, marked as such, of a run whose upstream had none; ``None`` if there is none."""
    metrics = last.metrics
    if metrics is None or metrics.prompt_tokens is None:
        return None
    return {
        "prompt_tokens": metrics.prompt_tokens,
        "completion_tokens": metrics.tokens,
        "total_tokens": metrics.prompt_tokens + metrics.tokens,
        "estimated": True,
    }
