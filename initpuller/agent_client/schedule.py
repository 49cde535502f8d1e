"""The order in which frames are fetched, and over which lane."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from structlog.contextvars import bound_contextvars

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from initpuller.agent_client.retry import Retrier

Brought = TypeVar("Brought")
Bring: TypeAlias = "Callable[[int, int | None], Awaitable[Brought]]"
"""Fetches a frame, given its number and the number of the frame that the same lane fetches next."""


async def fetch_frames(
    retrier: Retrier,
    lanes: Sequence[Bring[Brought]],
    parts: Sequence[Iterator[int]],
    receive: Callable[[int, Brought], Awaitable[None]],
) -> None:
    """Fetch all frames of ``parts`` over ``lanes``, which are as many.

    A lane fetches all frames of its own part, and then what is left of the others. So the databases
    at the end arrive beside the pictures: they compress well and keep the processors busy, while
    pictures keep the link busy. A lane fetches its next frame once ``receive`` has taken the number
    and the result of the last.

    Raises:
        PlexodusError: the first failure that a retry does not help.
    """

    async def run(bring: Bring[Brought], own: Iterator[int]) -> None:
        numbers = chain(own, *parts)
        ahead = next(numbers, None)
        while ahead is not None:
            number, ahead = ahead, next(numbers, None)
            with bound_contextvars(frame=number):
                brought = await retrier.run(f"frame {number}", partial(bring, number, ahead))
                await receive(number, brought)

    tasks = [asyncio.create_task(run(*each)) for each in zip(lanes, parts, strict=True)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
