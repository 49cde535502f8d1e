"""Files that asynchronous code opens: a cancellation leaves none open, and none behind."""

from __future__ import annotations

import asyncio
import os
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
