"""Files that asynchronous code opens: a cancellation leaves none open, and none behind."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from typing import TYPE_CHECKING

import aiofiles
import pytest

from shared.async_file import opened

if TYPE_CHECKING:
    from pathlib import Path


async def test_cancelled_while_a_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that is canceled before its file exists leaves no file behind."""
    path, real = tmp_path / "sums.new", open

    def slow(*arguments: object, **named: object) -> object:
        """Open a file after a while."""
        time.sleep(0.3)
        return real(*arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(aiofiles.threadpool, "sync_open", slow)

    async def download() -> None:
        """Open the file, and remove it however that ends."""
        try:
            async with opened(str(path), "wb"):
                pytest.fail("it was canceled before")
        finally:
            path.unlink(missing_ok=True)

    descriptors = os.listdir("/proc/self/fd")
    task = asyncio.create_task(download())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.4)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= len(descriptors) + 1


async def test_cancelled_twice_while_a_file_is_opened_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who is in a hurry gets the file closed, too, before the work ends."""
    path, closed = tmp_path / "file", list[str]()
    may_go = threading.Event()

    class Slow(io.FileIO):
        """A file that is closed after a while."""

        def close(self) -> None:
            """Close it."""
            if not self.closed:
                may_go.wait()
                closed.append(str(self.name))
            super().close()

    def slow(*arguments: object, **_named: object) -> object:
        """Open a file after a while."""
        may_go.wait()
        return Slow(str(arguments[0]), "wb")

    async def hold() -> None:
        """Hold the file for ever."""
        async with opened(str(path), "wb"):
            await asyncio.sleep(3600)

    monkeypatch.setattr(aiofiles.threadpool, "sync_open", slow)
    try:
        for is_late in (False, True):
            may_go.clear()
            task = asyncio.create_task(hold())
            if is_late:
                may_go.set()
                await asyncio.sleep(0.1)
                may_go.clear()
            for _ in range(3):
                await asyncio.sleep(0.1)
                task.cancel()
            await asyncio.sleep(0.1)
            assert not task.done()
            may_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert closed == [str(path)] * (is_late + 1)
    finally:
        may_go.set()  # or no thread of this test would end


async def test_written_data_is_readable(tmp_path: Path) -> None:
    """A file that was written and closed holds every byte."""
    path = tmp_path / "file"
    async with opened(str(path), "wb") as file:
        await file.write(b"one")
        await file.write(b"two")
    assert path.read_bytes() == b"onetwo"
    with pytest.raises(FileNotFoundError):
        async with opened(str(tmp_path / "none"), "rb"):
            pass
