"""Work in a thread with its own event loop, for which the process does not wait.

A query to a name server can take minutes and cannot be canceled. When Python exits, it waits for
the threads that an event loop starts for such queries, but not for daemon threads.
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
    """Start ``work``, and return the future of its result."""

    def run() -> T:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(_Daemons())
            return runner.run(work())

    return _Daemons().submit(run)


class _Daemons(ThreadPoolExecutor):
    """Runs each call in a daemon thread, for which the process does not wait."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # it cannot be canceled from here on

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the waiting thread gets it
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future
