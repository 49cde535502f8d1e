"""Work that a cancellation does not leave half done, as a signal or a lost lease would.

A thread cannot be cancelled. If nobody waits for it, it writes to the volume when the lock is
another puller's, or with descriptors that are closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from shared.cancellation import to_its_end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do ``work`` in a thread, to its end: it may write to the volume, whose lock is held then."""
    return await to_its_end(asyncio.to_thread(work, *args, **kwargs))


async def made_in_thread(make: Callable[[], T], close: Callable[[T], None]) -> T:
    """Do the same with ``make``, whose result is closed if nobody waits for it any more."""
    made: list[T] = []
    try:
        await in_thread(lambda: made.append(make()))
    except asyncio.CancelledError:
        for each in made:
            close(each)
        raise
    return made[0]


async def regardless(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` to its end, and forget each cancellation: it comes too late."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
    return task.result()


async def cancel(*futures: asyncio.Future[Any] | None) -> None:
    """Cancel these, and wait for their ends, however often cancelled."""
    begun = {each for each in futures if each is not None}
    for each in begun:
        each.cancel()
    if begun:
        await to_its_end(asyncio.wait(begun))
        for each in begun:
            if not each.cancelled():
                each.exception()  # it was seen, or does not matter any more
