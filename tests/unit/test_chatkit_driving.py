import asyncio
from collections.abc import AsyncGenerator

import pytest

from streaming.chatkit import driving


async def counted(cleaned: list[str]) -> AsyncGenerator[int, None]:
    try:
        yield 1
        await asyncio.sleep(0)
        yield 2
        await driving.pause()
        yield 3
    finally:
        cleaned.append("clean")


async def outer(cleaned: list[str]) -> AsyncGenerator[int, None]:
    async for item in counted(cleaned):
        yield item * 10


def test_a_coroutine_is_driven_to_its_result() -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        await driving.pause()
        return a + b

    assert driving.run(add(1, 2)) == 3


def test_items_come_in_order_and_a_pause_is_none() -> None:
    assert list(driving.iterate(outer([]))) == [10, 20, None, 30]


def test_an_iteration_that_was_left_goes_on_to_its_end() -> None:
    cleaned: list[str] = []
    items = driving.iterate(outer(cleaned))
    assert next(items) == 10
    assert list(items) == [20, None, 30]
    assert cleaned == ["clean"]
    assert list(items) == []


def test_what_is_raised_ends_the_iteration() -> None:
    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        await driving.pause()
        raise asyncio.CancelledError

    items = driving.iterate(broken())
    assert [next(items), next(items)] == [1, None]
    with pytest.raises(asyncio.CancelledError):
        next(items)
    assert list(items) == []


def test_waiting_for_an_event_loop_is_an_error_and_not_a_hang() -> None:
    async def waits() -> None:
        loop = asyncio.new_event_loop()
        try:
            await loop.create_future()
        finally:
            loop.close()

    with pytest.raises(RuntimeError, match="there is none"):
        driving.run(waits())
