"""The shutdown of an event loop that served in a thread of a test."""

from __future__ import annotations

import asyncio


async def end_tasks() -> None:
    """Cancel all other tasks, such as a stalled response, and let their connections close."""
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
    await asyncio.sleep(0.05)
