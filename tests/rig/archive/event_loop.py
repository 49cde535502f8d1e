"""The end of an event loop that served in a thread of a test."""

from __future__ import annotations

import asyncio


async def end_tasks() -> None:
    """Cancel what still runs, such as an answer that stalls, and let its connection close."""
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
    await asyncio.sleep(0.05)
