"""The exact setting to change, for each thing that can be wrong and each program that can do it."""

from collections.abc import Mapping

from streaming.doctor.findings import Change

_RECOGNISED = {
    "nginx": "nginx",
    "openresty": "nginx",
    "caddy": "Caddy",
    "heroku": "Heroku",
    "vegur": "Heroku",
    "cloudflare": "Cloudflare",
    "cloudfront": "CloudFront",
    "gunicorn": "gunicorn",
}

WORKER = 'worker_class = "streaming.gevent_worker.LeanGeventWorker": start with -c gunicorn.conf.py'

SETTINGS: dict[str, dict[str, str]] = {
    "buffering": {
        "nginx": "proxy_buffering off; proxy_http_version 1.1; and no proxy_ignore_headers "
        "X-Accel-Buffering. With two nginx in a row: in both, the inner one takes that header away",
        "Caddy": "reverse_proxy … { flush_interval -1 }",
        "Heroku": "the router passes chunks on; look at what stands before it",
        "Cloudflare": "no Workers or Snippets that read the body; Rocket Loader off here",
        "CloudFront": "a cache behaviour with CachingDisabled for these addresses",
    },
    "compression": {
        "nginx": "take text/event-stream (or *) out of gzip_types; or gzip off; in this location",
        "Caddy": "it obeys no-transform: look for header Cache-Control …, or what compresses behind it",
        "Cloudflare": "a compression rule that is off for text/event-stream",
        "CloudFront": "Compress objects automatically: No",
    },
    "idle_cut": {
        "nginx": "proxy_read_timeout 1h; and send_timeout 1h;",
        "Caddy": "no read_timeout or write_timeout in servers { timeouts } and in transport http",
        "Heroku": "cannot be changed (55 s); heartbeats keep a stream open",
        "Cloudflare": "cannot be changed (100 s); heartbeats keep a stream open",
        "CloudFront": "Origin response timeout: 60 seconds",
        "this service": "HEARTBEAT_SECONDS=<a third of the cut-off>",
    },
    "first_byte": {
        "nginx": "proxy_buffering off; and no auth_request, Lua or WAF that waits for the answer",
        "gunicorn": "more workers: -w, or WEB_CONCURRENCY; see what the service tells of its loop",
    },
    "blocked": {
        "gunicorn": f"{WORKER}, without -k; "
        "and nothing in your runnables that computes long or waits outside of gevent",
    },
    "one_at_a_time": {
        "gunicorn": f"{WORKER}, without -k sync and without --threads",
        "nginx": "limit_conn <zone> 100; or none; and no max_conns=1 at the server in upstream { }",
    },
    "few_at_once": {
        "nginx": "limit_conn <zone> 100; or none; worker_connections 4096; no max_conns in upstream { }",
        "gunicorn": "worker_connections = 10000",
        "Caddy": "no max_conns_per_host in transport http",
    },
    "last_event_id": {
        "nginx": 'take out proxy_set_header Last-Event-ID ""; and proxy_pass_request_headers off;',
        "Caddy": "take out header_up -Last-Event-ID",
        "CloudFront": "an origin request policy that forwards Last-Event-ID (AllViewer)",
    },
    "idempotency_key": {
        "nginx": 'take out proxy_set_header Idempotency-Key ""; and proxy_pass_request_headers off;',
        "Caddy": "take out header_up -Idempotency-Key",
        "CloudFront": "an origin request policy that forwards Idempotency-Key (AllViewer)",
    },
    "stream_id": {
        "nginx": "take out proxy_hide_header Stream-Id;",
        "Caddy": "take out header_down -Stream-Id",
    },
    "cache_control": {
        "nginx": "take out expires, add_header Cache-Control and proxy_hide_header Cache-Control in this "
        "location; proxy_cache off;",
        "Caddy": "take out header Cache-Control …",
        "Cloudflare": "Browser Cache TTL: Respect Existing Headers",
        "CloudFront": "a cache behaviour with CachingDisabled",
    },
    "content_type": {
        "nginx": "take out proxy_hide_header Content-Type; and what sets another one",
    },
    "host": {
        "nginx": "proxy_set_header Host $http_host;",
        "Caddy": "take out header_up Host …",
        "CloudFront": "an origin request policy that forwards Host (AllViewer)",
    },
    "forwarded_proto": {
        "nginx": "proxy_set_header X-Forwarded-Proto $scheme;",
        "Caddy": "take out header_up -X-Forwarded-Proto",
    },
    "websocket": {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header "
        "Connection $connection_upgrade; and in http { }: map $http_upgrade $connection_upgrade "
        '{ default upgrade; "" ""; }',
        "Caddy": "take out header_up -Upgrade; Caddy passes upgrades on by itself",
        "Cloudflare": "Network, WebSockets: On",
        "CloudFront": "an origin request policy that forwards all headers (AllViewer)",
        "gunicorn": 'worker_class = "streaming.gevent_worker.LeanGeventWorker"',
    },
    "keep_alive": {
        "nginx": "keepalive_timeout 75s; (not 0)",
        "gunicorn": "keepalive = 75",
    },
    "large_body": {
        "nginx": "client_max_body_size 17m;",
        "Caddy": "request_body { max_size 17MB }",
        "Cloudflare": "the plan's limit is 100 MB or more; look behind it",
        "this service": "MAX_BODY_BYTES",
    },
    "http1": {
        "nginx": "listen 443 ssl http2; (from 1.25.1 on: http2 on;)",
        "Caddy": "servers { protocols h1 h2 h3 }, which is the default",
        "Heroku": "heroku features:enable http-routing-2-dot-0",
    },
    "clock": {"the machine": "timedatectl set-ntp true"},
    "certificate": {
        "nginx": "renew ssl_certificate, and nginx -s reload",
        "Caddy": "caddy reload; see its log",
    },
    "tls_version": {"nginx": "ssl_protocols TLSv1.2 TLSv1.3;", "Caddy": "tls { protocols tls1.2 tls1.3 }"},
    "no_tls": {
        "nginx": "listen 443 ssl; ssl_certificate …; and return 301 https://$host$request_uri; on port 80",
        "Caddy": "a site address with a host name: Caddy gets its certificate by itself",
    },
    "redirect": {"the address": "use the address it leads to"},
}


def in_front(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the programs that the headers of an answer tell of, by the names used here.

    >>> in_front({"server": "nginx/1.22.1", "via": "1.1 heroku-router"})
    ('nginx', 'Heroku')
    """
    told = " ".join(headers.get(name, "") for name in ("server", "via", "x-served-by", "x-cache")).lower()
    return tuple(dict.fromkeys(name for word, name in _RECOGNISED.items() if word in told))


def changes(what: str, headers: Mapping[str, str]) -> tuple[Change, ...]:
    """Return what to change against ``what``: in the programs that were recognised, or else in all.

    A proxy hides what is behind it, so gunicorn's settings stay in the list.
    """
    settings = SETTINGS[what]
    known = in_front(headers)
    proxies = [name for name in known if name != "gunicorn"]
    kept = [
        name
        for name in settings
        if not proxies
        or name in proxies
        or name in ("gunicorn", "this service", "the machine", "the address")
    ]
    if not any(name in settings for name in known):
        kept = list(settings)
    return tuple(Change(name, settings[name]) for name in kept)
