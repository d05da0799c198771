"""What the way does to requests and answers besides: headers, WebSocket, bodies, HTTP and TLS, clocks."""

from urllib.parse import urlsplit

from streaming.doctor.findings import Finding
from streaming.doctor.measured import LARGE_BODY_BYTES, Measured
from streaming.doctor.remedies import changes, in_front

OWN_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
CLOCK_SECONDS = 2.0
CERTIFICATE_DAYS = 14.0
EXPECTED = {"no-store", "no-transform"}


def judge(measured: Measured) -> list[Finding]:
    return [
        *_http(measured),
        *_request_headers(measured),
        *_answer_headers(measured),
        *_websocket(measured),
        *_body(measured),
        *_clock(measured),
    ]


def _http(measured: Measured) -> list[Finding]:
    found = []
    parts = urlsplit(measured.url)
    front = ", ".join(in_front(measured.headers)) or measured.headers.get("server") or "nobody says what"
    told = f"HTTP/{measured.http or '?'}, {parts.scheme}; in front: {front}"
    own = (parts.hostname or "") in OWN_HOSTS
    headers = measured.headers
    if tls := measured.tls:
        told += f"; {tls.version}, HTTP/2 {'offered' if tls.http2 else 'not offered'}"
        if tls.version in ("TLSv1", "TLSv1.1", "SSLv3"):
            why = "These versions have known attacks, and browsers refuse them."
            found.append(
                Finding("fault", "tls_version", "TLS is too old", told, why, changes("tls_version", headers))
            )
        if tls.days_left is not None and tls.days_left < CERTIFICATE_DAYS:
            found.append(
                Finding(
                    "warning" if tls.days_left > 0 else "fault",
                    "certificate",
                    "The certificate expires soon" if tls.days_left > 0 else "The certificate has expired",
                    f"{tls.days_left:.0f} days left",
                    "From then on nobody can connect.",
                    changes("certificate", headers),
                )
            )
    elif parts.scheme == "http" and not own:
        why = "Keys, prompts and answers can be read by everybody on the way."
        found.append(Finding("warning", "no_tls", "There is no TLS", told, why, changes("no_tls", headers)))
    http1 = (tls is not None and not tls.http2) or (
        parts.scheme == "https" and measured.http == "1.1" and not tls
    )
    if http1:
        found.append(
            Finding(
                "note",
                "http1",
                "Browsers are not offered HTTP/2",
                told,
                "A browser opens six HTTP/1.1 connections to a host. This service's page needs one for all "
                "its tabs; other pages may hold one for each answer.",
                changes("http1", headers),
            )
        )
    if measured.keeps_connection is False:
        why = "Each request then costs a new connection, over TLS a handshake too."
        found.append(
            Finding(
                "note",
                "keep_alive",
                "A connection serves one request only",
                told,
                why,
                changes("keep_alive", headers),
            )
        )
    return found or [Finding("ok", "http", "The connection is as it should be", told)]


def _request_headers(measured: Measured) -> list[Finding]:
    seen = measured.seen
    if seen is None:
        return []
    found = []
    headers = measured.headers
    sent = measured.sent_last_event_id
    if sent and seen.last_event_id != sent:
        found.append(
            Finding(
                "fault",
                "last_event_id",
                "Last-Event-ID does not arrive",
                f"{sent!r} was sent, {seen.last_event_id!r} arrived",
                "An EventSource that comes back gets the whole answer again instead of going on.",
                changes("last_event_id", headers),
            )
        )
    sent = measured.sent_idempotency_key
    if sent and seen.idempotency_key != sent:
        found.append(
            Finding(
                "fault",
                "idempotency_key",
                "Idempotency-Key does not arrive",
                f"{sent!r} was sent, {seen.idempotency_key!r} arrived",
                "A request that is repeated starts, and bills, a second run.",
                changes("idempotency_key", headers),
            )
        )
    asked = urlsplit(measured.url)
    if seen.host and seen.host.lower() not in _hosts(measured.url):
        found.append(
            Finding(
                "warning",
                "host",
                "The service is asked under another host name",
                f"Host: {asked.netloc.rpartition('@')[2]} was sent, {seen.host} arrived",
                "The service compares Host with the page's address, to refuse other sites' pages; "
                "its own page may be refused too.",
                changes("host", headers),
            )
        )
    if asked.scheme == "https" and "https" not in (seen.scheme, seen.forwarded_proto):
        found.append(
            Finding(
                "warning",
                "forwarded_proto",
                "The service does not learn that it is asked over https",
                f"scheme {seen.scheme or '?'}, X-Forwarded-Proto {seen.forwarded_proto or 'absent'}",
                "Links it writes begin with http://, and cookies are not marked as secure.",
                changes("forwarded_proto", headers),
            )
        )
    if found:
        return found
    return [Finding("ok", "request_headers", "Requests arrive as they were sent", f"Host {seen.host or '?'}")]


def _answer_headers(measured: Measured) -> list[Finding]:
    headers = measured.headers
    if not headers:
        return []
    found = []
    given = {part.strip().lower() for part in headers.get("cache-control", "").split(",")}
    if not given >= EXPECTED:
        found.append(
            Finding(
                "warning",
                "cache_control",
                "Cache-Control was changed on the way",
                f"{headers.get('cache-control', 'absent')}; it was no-store, no-transform",
                "A cache may keep one person's answer, or change a stream.",
                changes("cache_control", headers),
            )
        )
    if not headers.get("stream-id"):
        found.append(
            Finding(
                "fault",
                "stream_id",
                "The header Stream-Id is lost",
                "it was sent, and did not come",
                "Clients of POST /streams and of OpenAI's API find the run by it, to resume or cancel.",
                changes("stream_id", headers),
            )
        )
    if not headers.get("content-type", "").startswith("text/event-stream"):
        found.append(
            Finding(
                "fault",
                "content_type",
                "The type of the answer was changed",
                f"Content-Type: {headers.get('content-type', 'absent')[:80]}",
                "EventSource refuses it.",
                changes("content_type", headers),
            )
        )
    told = "Stream-Id, Cache-Control and Content-Type came as sent"
    return found or [Finding("ok", "answer_headers", "Answers come as they were sent", told)]


def _websocket(measured: Measured) -> list[Finding]:
    status = measured.websocket_status
    if status is None:
        return []
    if status == 101:
        return [Finding("ok", "websocket", "WebSocket passes", "101 Switching Protocols")]
    return [
        Finding(
            "warning",
            "websocket",
            "WebSocket does not pass",
            f"status {status} instead of 101" if status else "no answer to the upgrade",
            "/ws cannot be used. Event streams, and the page, do without.",
            changes("websocket", measured.headers),
        )
    ]


def _body(measured: Measured) -> list[Finding]:
    status = measured.large_body_status
    if status is None:
        return []
    size = f"{LARGE_BODY_BYTES // 1024**2} MiB"
    if 200 <= status < 300:
        return [Finding("ok", "large_body", "Requests with images get in", f"a body of {size} arrived")]
    return [
        Finding(
            "warning",
            "large_body",
            "Large requests are refused on the way",
            f"a body of {size}: status {status}" if status else f"a body of {size}: no answer",
            "Images and long conversations are sent in the body; the service itself takes 16 MiB.",
            changes("large_body", measured.headers),
        )
    ]


def _clock(measured: Measured) -> list[Finding]:
    ahead = measured.clock_ahead_seconds
    if ahead is None:
        return []
    within = measured.clock_within_seconds
    told = f"the service's clock is {ahead:+.2f} s of this one, give or take {within:.2f} s"
    if abs(ahead) <= CLOCK_SECONDS + within:
        return [Finding("ok", "clock", "The clocks agree", told)]
    return [
        Finding(
            "warning",
            "clock",
            "The clocks differ",
            told,
            "Keys expire early or late, and log lines of two machines cannot be compared.",
            changes("clock", measured.headers),
        )
    ]


def _hosts(url: str) -> set[str]:
    """Return how a client may name the host of ``url``: with its usual port and without."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return {host, host.removesuffix(usual), host + usual}
