"""The Redis or Valkey server of an event log: how to reach it, and whether it will keep what it is given."""

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import hiredis
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from streaming.doctor.service import Store
from streaming.errors import SettingsError
from streaming.eventlogs import _ids
from streaming.eventlogs._redis_scripts import OPEN, SCHEMA_VERSION, Argument, Command

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
START_SECONDS = 10.0
"""How long the start waits for a server that is starting too."""

LOST = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError)
"""What says that a connection is no use any more."""


class Connection(Protocol):
    """The part of redis-py's connection that is used here."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None: ...

    def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...


class Address(NamedTuple):
    url: str
    """For redis-py: without what only this service understands."""
    shown: str
    """For people: without a password."""
    wait_replicas: int
    """How many replicas must have a stream's last event before it counts as written."""


def parse(url: str) -> Address:
    """Read ``redis[s]://[user:password@]host[:port][/database][?wait_replicas=1]``."""
    parts = urlsplit(url)
    try:
        shown = f"{parts.hostname}:{parts.port or 6379}"
    except ValueError:
        raise SettingsError("EVENTLOG_URL: the port is not a number") from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise SettingsError("EVENTLOG_URL: write redis://host:6379/0, or rediss:// for TLS")
    if not (parts.path.strip("/") or "0").isdigit():
        raise SettingsError(f"EVENTLOG_URL: {parts.path!r} is not the number of a database, such as /0")
    options = dict(parse_qsl(parts.query))
    replicas = options.pop("wait_replicas", "0")
    if not replicas.isdigit():
        raise SettingsError(f"EVENTLOG_URL: wait_replicas={replicas} is not a number of replicas")
    return Address(parts._replace(query=urlencode(options)).geturl(), shown, int(replicas))


def connect(address: Address, name: str, block_seconds: float = 0.0) -> Connection:
    """Return a new connection, connected; its answers may take ``block_seconds`` longer than usual.

    Blocks; raises one of `LOST`.
    """
    connection = _connection(address, name, block_seconds + ANSWER_SECONDS)
    connection.connect()
    return connection


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(cast(Any, command))
    return packed


def ask(connection: Connection, *command: Argument) -> Any:
    """Send one command and return its answer. Blocks; raises one of `LOST`, or what the server says."""
    connection.send_packed_command([pack(command)], check_health=False)
    return connection.read_response()


def load(connection: Connection, scripts: Sequence[str]) -> None:
    for script in scripts:
        ask(connection, "SCRIPT", "LOAD", script)


def open_store(connection: Connection) -> tuple[str, str]:
    """Return the id and the schema of the store, which gets them now if it is new."""
    store_id, schema = ask(connection, *OPEN.command((), _ids.new_store_id(), SCHEMA_VERSION))
    return store_id.decode(), schema.decode()


def run_id(connection: Connection) -> str:
    """Return what names the running server: another one, or the same started again, has another."""
    return _facts(ask(connection, "INFO", "server")).get("run_id", "unknown")


def open_at_start(address: Address, name: str, scripts: Sequence[str]) -> str:
    """Check that the server will do and return the store's id.

    Waits for a server that is not there yet. Raises `SettingsError`.
    """
    connection = _connect_at_start(address, name)
    try:
        _check(connection, address)
        load(connection, scripts)
        store_id, schema = open_store(connection)
    except redis.exceptions.NoPermissionError as error:
        raise SettingsError(f"EVENTLOG_URL: the user may not do what is needed: {error}") from None
    except (redis.RedisError, OSError) as error:
        raise SettingsError(f"EVENTLOG_URL: {address.shown} cannot be used: {error}") from None
    finally:
        connection.disconnect()
    if schema != SCHEMA_VERSION:
        raise SettingsError(
            f"EVENTLOG_URL: {address.shown} holds streams of another version of this service (schema"
            f" {schema}, this one has {SCHEMA_VERSION}); name another database"
        )
    return store_id


def _connection(address: Address, name: str, answer_seconds: float) -> Connection:
    try:
        pool = redis.ConnectionPool.from_url(
            address.url,
            protocol=2,
            client_name=name,
            driver_info=None,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=answer_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        return cast(Connection, pool.make_connection())
    except (TypeError, ValueError) as error:
        raise SettingsError(f"EVENTLOG_URL: {error}") from None


def _connect_at_start(address: Address, name: str) -> Connection:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return connect(address, name)
        except redis.AuthenticationError:
            raise SettingsError(
                f"EVENTLOG_URL: {address.shown} refuses the user or the password;"
                " write redis://user:password@host:6379/0"
            ) from None
        except redis.ResponseError as error:
            raise SettingsError(f"EVENTLOG_URL: {address.shown} refuses: {error}") from None
        except LOST as error:
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"EVENTLOG_URL: cannot connect to {address.shown}: {str(error).rstrip('.')};"
                    " start the server or name the one that runs"
                ) from None
            time.sleep(0.25)


# What the server must be like


def _check(connection: Connection, address: Address) -> None:
    facts = _facts(ask(connection, "INFO"))
    name = "Valkey" if "valkey_version" in facts else "Redis"
    _check_version(facts.get("redis_version", ""), address)
    if facts.get("cluster_enabled") == "1":
        raise SettingsError(
            f"EVENTLOG_URL: {address.shown} is part of a cluster, whose keys cannot be changed together;"
            " name a single server, or a primary with replicas"
        )
    if facts.get("role", "master") != "master":
        raise SettingsError(f"EVENTLOG_URL: {address.shown} is a replica; name its primary")
    _check_eviction(connection, facts, address)
    persistence = _persistence(connection, facts)
    fields = {
        "server": f"{name} {facts.get('valkey_version') or facts.get('redis_version')}",
        "persistence": persistence,
        "replicas": facts.get("connected_slaves", "?"),
    }
    if persistence == "none" and fields["replicas"] == "0":
        logger.warning("the event log is gone when its server stops: set appendonly yes", extra=fields)
    else:
        logger.info("event log opened", extra=fields)


def _facts(info: bytes) -> dict[str, str]:
    """Parse an answer to INFO. Source: https://redis.io/docs/latest/commands/info/."""
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _check_version(version: str, address: Address) -> None:
    number = version.partition(".")[0]
    if number.isdigit() and int(number) < 7:
        raise SettingsError(
            f"EVENTLOG_URL: {address.shown} is version {version}; Redis or Valkey 7 or newer is needed"
        )


def _check_eviction(connection: Connection, facts: dict[str, str], address: Address) -> None:
    policy = facts.get("maxmemory_policy") or _configured(connection, "maxmemory-policy")
    if not policy:
        logger.warning("cannot see maxmemory-policy, which must be noeviction")
    elif policy != "noeviction":
        raise SettingsError(
            f"EVENTLOG_URL: {address.shown} has maxmemory-policy {policy}, which deletes streams when"
            " memory is short; set maxmemory-policy noeviction"
        )


def _persistence(connection: Connection, facts: dict[str, str]) -> str:
    """Return what survives a restart of the server, as far as it tells."""
    if facts.get("aof_enabled") == "1":
        fsync = _configured(connection, "appendfsync")
        return f"AOF, fsync {fsync}" if fsync else "AOF"
    save = _configured(connection, "save")
    if save is None:
        return "unknown"
    return f"RDB, save {save}" if save else "none"


def _configured(connection: Connection, name: str) -> str | None:
    """Return a setting of the server, ``None`` where it may not be asked, as on managed ones."""
    try:
        found = ask(connection, "CONFIG", "GET", name)
    except redis.ResponseError:
        return None
    return found[1].decode() if found else None


def describe(address: Address, name: str) -> Store:
    """Ask the server how it is set now, which may be another way than when it was opened. Blocks."""
    try:
        connection = connect(address, name)
    except (SettingsError, *LOST, redis.RedisError) as error:
        return Store("redis", unreachable=f"{address.shown}: {type(error).__name__}")
    try:
        asked_at = time.time()
        seconds, microseconds = (int(part) for part in ask(connection, "TIME"))
        answer_seconds = time.time() - asked_at
        facts = _facts(ask(connection, "INFO"))
        kind = "Valkey" if "valkey_version" in facts else "Redis"
        return Store(
            "redis",
            version=f"{kind} {facts.get('valkey_version') or facts.get('redis_version')}",
            policy=facts.get("maxmemory_policy") or _configured(connection, "maxmemory-policy"),
            persistence=_persistence(connection, facts),
            replicas=facts.get("connected_slaves", ""),
            answer_ms=answer_seconds * 1000,
            clock_ahead_seconds=seconds + microseconds / 1e6 - asked_at - answer_seconds / 2,
        )
    except (*LOST, redis.RedisError, ValueError) as error:
        return Store("redis", unreachable=f"{address.shown}: {type(error).__name__}")
    finally:
        connection.disconnect()
