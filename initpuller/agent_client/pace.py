"""Limits of a response: its slowest rate and its greatest length."""

from __future__ import annotations

import io
import time
from http.client import HTTPException, HTTPResponse
from typing import Any

SLOWEST = 1024
"""Bytes a second: a sixteenth of the share of one of four requests on a link of 64 kB/s."""
MAX_HEAD = 256 * 1024
"""Bytes of status lines, headers, chunk sizes and trailers of one response."""


class TooSlow(TimeoutError):
    """A response arrives too slowly."""


class Pace:
    """Measures the rate of a response in windows of time, in seconds; each must bring enough."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._since = time.monotonic()
        self._bytes = 0

    def restart(self) -> None:
        """Begin a new window."""
        self._since, self._bytes = time.monotonic(), 0

    def took(self, count: int) -> None:
        """Count bytes that have arrived; raise TooSlow if the window that has ended had too few."""
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < self._window:
            return
        if self._bytes < SLOWEST * self._window:
            raise TooSlow(
                f"only {self._bytes} bytes came in {seconds:.0f} s, at least {SLOWEST} a second are"
                " needed"
            )
        self.restart()


class _PacedReader(io.RawIOBase):
    """The bytes that a socket receives for one response."""

    def __init__(self, source: io.RawIOBase, pace: Pace) -> None:
        super().__init__()
        self._source = source
        self._pace = pace
        self.left = MAX_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - whatever can be written
        if self.left <= 0:
            raise HTTPException("the response continues after its body")
        got = self._source.readinto(memoryview(buffer)[: self.left])
        if got:
            self.left -= got
            self._pace.took(got)
        return got

    def close(self) -> None:
        self._source.close()
        super().close()


class PacedResponse(HTTPResponse):
    """A response whose head must arrive in one window, and whose length is limited.

    Python's own class reads any number of interim responses, and all of a chunked 304.
    """

    def __init__(self, sock: Any, *args: Any, **known: Any) -> None:  # noqa: ANN401 - as above it
        super().__init__(sock, *args, **known)
        self._pace = Pace(sock.gettimeout() or float("inf"))
        self._reader = _PacedReader(self.fp.detach(), self._pace)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the head."""
        super().begin()
        self._pace.restart()

    def allow(self, most: int) -> None:
        """Admit a body of ``most`` bytes, and the sizes of its chunks."""
        self._reader.left = most + most // 64 + MAX_HEAD
        self._pace.restart()
