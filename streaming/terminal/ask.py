"""Ask, print the answer as it comes, and say by the exit status how it ended."""

import math
import time
from typing import Any

from streaming.errors import SettingsError
from streaming.terminal.arguments import DONE, FAILED, STOPPED, UNREACHABLE, WRONG_USE, Asked
from streaming.terminal.client import Client, Refused
from streaming.terminal.follower import Follower, Link, TimeUp, Unverified
from streaming.terminal.screen import OutputClosed, Screen, standard
from streaming.terminal.stopping import Stopping
from streaming.terminal.telling import Diverged, Telling
from streaming.terminal.transport import Broken, Remote, Transport

GRACE_SECONDS = 10.0
"""How much later than the service the client ends a run that takes too long."""


def ask(asked: Asked) -> int:
    """Do what the command line says; return the exit status. Blocks until the answer has ended."""
    screen = standard()
    try:
        transport = _transport(asked)
    except SettingsError as error:
        screen.error(f"Sluice cannot start. {error}")
        return WRONG_USE
    client = Client(transport)
    with Stopping(client, screen.restore, screen.note) as stopping:
        try:
            status = _Run(asked, client, screen, stopping).follow()
        finally:
            screen.end()
            transport.close()
    return status


def _transport(asked: Asked) -> Transport:
    if asked.url:
        return Remote(asked.url)
    from streaming.terminal.here import Here

    return Here(asked.fields.get("source", ""))


class _Run:
    def __init__(self, asked: Asked, client: Client, screen: Screen, stopping: Stopping) -> None:
        self._asked = asked
        self._client = client
        self._screen = screen
        self._stopping = stopping
        self._stream_id = ""
        self._follower: Follower | None = None
        self._link: Link = "open"

    def follow(self) -> int:
        where = self._asked.url or "the service"
        try:
            return self._follow()
        except Refused as error:
            self._screen.error(str(error))
            return FAILED
        except Broken as error:
            self._screen.error(f"{where} cannot be reached: {error}")
            self._say_how_to_resume()
            return UNREACHABLE
        except (Unverified, Diverged) as error:
            said = str(error) or "the answer came again with another text than before"
            self._screen.error(f"{said}: do not rely on it")
            return FAILED
        except TimeUp:
            self._stopping.cancel()
            self._screen.error("The run took longer than its --timeout")
            return FAILED
        except OutputClosed:
            self._stopping.cancel()
            return STOPPED

    def _follow(self) -> int:
        asked = self._asked
        seconds = asked.timeout_seconds
        deadline = time.monotonic() + seconds + GRACE_SECONDS if seconds else math.inf
        self._stream_id = asked.resume or self._client.start(asked.fields)
        self._stopping.started(self._stream_id)
        self._follower = Follower(
            self._client, self._stream_id, asked.after, asked.patience_seconds, self._on_link, deadline
        )
        telling = Telling(self._screen, asked.as_json)
        last: dict[str, Any] = {}
        for last, cursor in self._follower.events():
            telling.tell(last, cursor)
        return self._ended(last)

    def _ended(self, last: dict[str, Any]) -> int:
        if last["type"] == "error":
            error = last.get("error")
            message = error.get("message") if isinstance(error, dict) else None
            self._screen.error(message or "the run failed")
            return FAILED
        return STOPPED if last.get("finish_reason") == "cancelled" else DONE

    def _on_link(self, link: Link) -> None:
        if link == self._link:
            return
        self._link = link
        if link == "reconnecting":
            self._screen.progress("connection lost, reconnecting", at_once=True)
        elif link == "polling":
            self._screen.note("This network holds event streams back: polling")

    def _say_how_to_resume(self) -> None:
        if self._follower is not None:
            after = f" --after {self._follower.cursor}" if self._follower.cursor else ""
            resume = f"--url {self._asked.url} --resume {self._stream_id}{after}"
            self._screen.note(f"Go on with: python -m streaming ask {resume}")
