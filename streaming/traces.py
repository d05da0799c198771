"""Which trace a request belongs to, so that what it makes us ask can be found together.

Source: https://www.w3.org/TR/trace-context/, sections 3.2 (traceparent), 3.3 (tracestate)
and 4 (processing). What is malformed is treated as if it had not been sent.
"""

import re
import secrets
from collections.abc import Callable, MutableMapping, Sequence
from contextvars import ContextVar

from msgspec import Struct
from msgspec.structs import replace

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(rf"({_KEY})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e])")
MOST_MEMBERS = 32
MOST_STATE_CHARS = 512
"""What is passed on at least; members after that are left out."""
_SAMPLED, _RANDOM = 1, 2


class Trace(Struct, frozen=True):
    """A place in a trace: what is asked from here has it as its parent."""

    trace_id: str
    span_id: str
    """Of what we do here."""
    parent_id: str = ""
    """Of what made the caller ask; "" where the trace begins here."""
    flags: int = 0
    state: str = ""
    """What other vendors keep in it, as it came."""
    request_id: str = ""

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def sibling(self) -> "Trace":
        """Return another place under the same parent."""
        return replace(self, span_id=_new_id(8))


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def _never(trace_id: str) -> bool:
    return False


_is_sampled: Callable[[str], bool] = _never


def sample_by(is_sampled: Callable[[str], bool]) -> None:
    """Decide with this whether a trace that begins here is recorded."""
    global _is_sampled
    _is_sampled = is_sampled


def begin(traceparents: Sequence[str] = (), tracestates: Sequence[str] = (), request_id: str = "") -> Trace:
    """Return where a request stands that came with these headers, each as often as it was sent."""
    found = parent_of(traceparents)
    if found is None:
        trace_id = _new_id(16)
        return Trace(trace_id, _new_id(8), flags=_RANDOM | _is_sampled(trace_id), request_id=request_id)
    trace_id, parent_id, flags = found
    return Trace(trace_id, _new_id(8), parent_id, flags, state_of(tracestates), request_id)


def enter(trace: Trace | None) -> None:
    """Let what this greenlet does from now on belong to ``trace``."""
    _current.set(trace)


def current() -> Trace | None:
    return _current.get()


def write(headers: MutableMapping[str, str], with_request_id: bool = False) -> None:
    """Put where we are into the headers of a request that is about to be sent, unless it says so itself."""
    trace = _current.get()
    if trace is None or "traceparent" in headers:
        return
    headers["traceparent"] = trace.traceparent
    if trace.state:
        headers["tracestate"] = trace.state
    if with_request_id and trace.request_id and "x-request-id" not in headers:
        headers["x-request-id"] = trace.request_id


def parent_of(traceparents: Sequence[str]) -> tuple[str, str, int] | None:
    """Return the trace's id, the caller's id and the flags; ``None`` if that is not what the headers say.

    >>> parent_of(["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
    ('0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', 1)
    """
    if len(traceparents) != 1:
        return None
    found = _PARENT.fullmatch(traceparents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return trace_id, parent_id, int(flags, 16) & (_SAMPLED | _RANDOM)


def state_of(tracestates: Sequence[str]) -> str:
    """Return the tracestate to be passed on; "" if any of it is malformed.

    >>> state_of(["rojo=00f067aa0ba902b7 ", "congo=t61rcWkgMzE"])
    'rojo=00f067aa0ba902b7,congo=t61rcWkgMzE'
    """
    members: dict[str, str] = {}
    for said in ",".join(tracestates).split(","):
        member = said.strip(" \t")
        if not member:
            continue
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in members or len(members) == MOST_MEMBERS:
            return ""
        members[found[1]] = member
    while members and len(",".join(members.values())) > MOST_STATE_CHARS:
        members.popitem()
    return ",".join(members.values())


def _new_id(size_bytes: int) -> str:
    while not (made := secrets.token_hex(size_bytes)).strip("0"):
        pass  # an id of zeros means none
    return made
