"""The agent's whole application in a thread of this process, reached over TLS."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar
from unittest.mock import patch

from agent import app
from agent.frames.archive_encoding import EncodedFrame, Representation
from agent.frames.cache import FrameCache
from agent.routes import archives
from agent.routes.frame_stream import FrameStream
from agent.server.credentials import make_pairing
from agent.server.tls import server_tls
from agent.settings import Settings
from agent.source.library import CurrentLibrary
from rig.archive.client import ArchiveClient
from rig.archive.event_loop import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
_SECONDS = 60.0


class InProcess:
    """An agent that can be stopped and started again. Only its state folder is kept.

    Args:
        state: the agent's state folder.
        library: the folder that it serves.
    """

    def __init__(self, state: Path, library: Path) -> None:
        self.library = library
        self.state = state
        self.made: list[tuple[str, int]] = []
        """The archive (path of its index) and the number of each frame that was built, in order."""
        self.before_make: Callable[[Representation, int], None] | None = None
        """Called in the worker thread before a frame is built. An error in it fails the frame."""
        self.frames: FrameCache
        self.streams: FrameStream
        self.client: ArchiveClient
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        """Pair and start the agent."""
        token = make_pairing(str(self.state), "127.0.0.1", 1).token
        self._token = token
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the agent."""
        self.stop()

    def start(self) -> None:
        """Start serving, with nothing in memory from before."""
        make = Representation.make

        def counted(archive: Representation, number: int) -> EncodedFrame:
            self.made.append((archive.index._path, number))
            if self.before_make is not None:
                self.before_make(archive, number)
            return make(archive, number)

        self._patches.enter_context(patch.object(Representation, "make", counted))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.in_loop(self._start())

    def stop(self) -> None:
        """End every connection, and discard everything in memory."""
        self.in_loop(self._runner.cleanup())
        self.in_loop(end_tasks())
        self.in_loop(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._patches.close()

    def restart(self) -> None:
        """Stop and start, as after a crash that leaves only the state folder."""
        self.stop()
        self.start()

    def times_made(self) -> Counter[tuple[str, int]]:
        """Return how often each frame was built."""
        return Counter(self.made)

    def in_loop(self, work: Any) -> Any:  # noqa: ANN401 - whatever the coroutine returns
        """Return the result of a coroutine in the agent's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def look(self, at: Callable[[], T]) -> T:
        """Return the result of ``at``, called in the agent's event loop."""

        async def called() -> T:
            """Run in the thread of the event loop."""
            return at()

        found: T = self.in_loop(called())
        return found

    async def _start(self) -> None:
        def frames(*args: Any, **kwargs: Any) -> FrameCache:  # noqa: ANN401 - passed on
            self.frames = FrameCache(*args, **kwargs)
            return self.frames

        def streams(*args: Any) -> FrameStream:  # noqa: ANN401 - passed on
            self.streams = FrameStream(*args)
            return self.streams

        with (
            patch.object(app, "FrameCache", frames),
            patch.object(archives, "FrameStream", streams),
        ):
            settings = Settings(state=str(self.state), listen="127.0.0.1:0")
            library = CurrentLibrary(str(self.library), str, settings.state)
            parts = app.make_app(settings, library)
        self._runner, _ = await app.listen(parts, settings, server_tls(settings), shutdown=0.1)
        port = self._runner.addresses[0][1]
        self.client = ArchiveClient(port, self.state, self._token)
