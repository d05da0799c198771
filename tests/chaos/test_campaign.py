"""A campaign looks at what its harm has begun too."""

import asyncio
from argparse import Namespace
from typing import Any

import pytest

from tests.chaos import campaign


def test_the_users_of_the_last_harm_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def load(*_: Any) -> None:
        await asyncio.sleep(0)
        ended.append("load")

    async def harm(rig: Any, count: int) -> None:
        await asyncio.sleep(0.01)
        ended.append("users of the harm")

    async def audit(rig: Any) -> None:
        ended.append("audit")

    async def calm(rig: Any) -> None:
        pass

    for name, double in (("load", load), ("audit", audit), ("calm", calm)):
        monkeypatch.setattr(campaign, name, double)
    rig: Any = Namespace(options=Namespace(streams=1, at_once=1), harms=1)

    asyncio.run(campaign._harmed(rig, harm, 1))

    assert ended == ["load", "users of the harm", "audit"]
