"""The order in which frames are fetched, and over which lane."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from structlog.contextvars import bound_contextvars

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from initpuller.agent_client.retry import Retrier

Brought = TypeVar("Brought")
Bring: TypeAlias = "Callable[[int, int | None], Awaitable[Brought]]"
"""Fetches a frame, given its number and the number of the frame that the same lane fetches next."""


async def fetch_frames(
    retrier: Retrier,
    lanes: Sequence[Bring[Brought]],
    wanted: Iterable[int],
    receive: Callable[[int, Brought], Awaitable[None]],
) -> None:
    """Fetch the ``wanted`` frames in order, one at a time over each of ``lanes``.

    A lane fetches its next frame once ``receive`` has taken the number and the result of the last.

    Raises:
        PlexodusError: the first failure that a retry does not help.
    """
    numbers = iter(wanted)

    async def run(bring: Bring[Brought]) -> None:
        ahead = next(numbers, None)
        while ahead is not None:
            number, ahead = ahead, next(numbers, None)
            with bound_contextvars(frame=number):
                brought = await retrier.run(f"frame {number}", partial(bring, number, ahead))
                await receive(number, brought)

    tasks = [asyncio.create_task(run(bring)) for bring in lanes]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
