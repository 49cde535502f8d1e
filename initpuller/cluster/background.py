"""Work in a thread and an event loop of its own, which nobody has to wait for.

A question to a name server can take minutes, and cannot be stopped: Python waits at its end for the
threads in which event loops ask, but not for those that are daemons.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Begin ``work``; what comes of it."""

    def run() -> T:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(_Daemons())
            return runner.run(work())

    return _Daemons().submit(run)


class _Daemons(ThreadPoolExecutor):
    """A thread for each call; the process may end before it does."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from here on, nobody can cancel it

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the waiting thread gets it
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future
