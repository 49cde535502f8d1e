"""Which frame is fetched when, and by whom."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from initpuller.agent_client.retry import Retrier

Brought = TypeVar("Brought")
Bring: TypeAlias = "Callable[[int, int | None], Awaitable[Brought]]"
"""Brings a frame, given its number and that of the one it will be asked for next."""


async def fetch_frames(
    retrier: Retrier,
    lanes: Sequence[Bring[Brought]],
    wanted: Iterable[int],
    receive: Callable[[int, Brought], Awaitable[None]],
) -> None:
    """Have the ``wanted`` frames brought, one at a time by each of ``lanes``.

    Args:
        retrier: how to try again.
        lanes: who brings frames.
        wanted: the numbers of those to fetch, in order.
        receive: takes the number of a frame, and what came of it; awaited before its lane
            brings the next one.

    Raises:
        PlexodusError: the first failure that is not mended by trying again.
    """
    numbers = iter(wanted)

    async def run(bring: Bring[Brought]) -> None:
        ahead = next(numbers, None)
        while ahead is not None:
            number, ahead = ahead, next(numbers, None)
            brought = await retrier.run(f"frame {number}", partial(bring, number, ahead))
            await receive(number, brought)

    tasks = [asyncio.create_task(run(bring)) for bring in lanes]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
