"""Frames from the agent, a few at a time, each handed on as soon as it is verified."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from initpuller.wire.backoff import Retrier
    from initpuller.wire.client import AgentClient
    from shared.digest import Buffer
    from shared.frameplan import FramePlan


async def fetch_frames(
    client: AgentClient,
    retrier: Retrier,
    snapshot: str,
    plan: FramePlan,
    wanted: Iterable[int],
    jobs: int,
    receive: Callable[[int, Buffer, str], Awaitable[None]],
) -> None:
    """Fetch the ``wanted`` frames of ``plan``, ``jobs`` at the same time.

    Args:
        client: the agent.
        retrier: how to try again.
        snapshot: the snapshot's name.
        plan: its frames.
        wanted: the numbers of those to fetch, in order.
        jobs: how many at a time; also the most that are in memory.
        receive: takes a frame's number, verified tar bytes and hex digest; awaited before the
            next frame is asked for.

    Raises:
        PlexodusError: the first failure that is not mended by trying again.
    """
    numbers = iter(wanted)

    async def worker() -> None:
        for number in numbers:
            size = plan[number].size

            async def fetch(number: int = number, size: int = size) -> tuple[Buffer, str]:
                return await client.frame(snapshot, number, size)

            tar, digest = await retrier.run(f"frame {number}", fetch)
            await receive(number, tar, digest)

    workers = [asyncio.create_task(worker()) for _ in range(jobs)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        # Whatever was being unpacked is finished: an interrupted run keeps it.
        await asyncio.gather(*workers, return_exceptions=True)
