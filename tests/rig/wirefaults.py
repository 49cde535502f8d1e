"""A TCP proxy between puller and agent that does what bad networks do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 64 * 1024


@dataclass
class Faults:
    """What happens to bytes from the agent; counts are of one connection."""

    cut_after: int | None = None
    """Reset the connection after so many bytes."""
    stall_after: int | None = None
    """Pass nothing on after so many bytes, and keep the connection."""
    flip_at: int | None = None
    """Turn over one bit of the byte at this place."""
    times: int = 10**9
    """How many connections the fault happens to; the ones after are left alone."""
    bytes_per_second: float | None = None
    """At most so many, over all connections together."""


@dataclass
class FaultyNetwork:
    """Listens on :attr:`port` and passes on to the agent's port."""

    agent_port: int
    faults: Faults = field(default_factory=Faults)
    passed: int = 0
    """Bytes from the agent in all."""
    happened: int = 0
    """How many connections a fault happened to."""

    def __post_init__(self) -> None:
        """Take a port."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Begin to listen."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut everything, and listen no more."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        _close(*self._sockets)
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                agent = socket.create_connection(("127.0.0.1", self.agent_port))
            except OSError:
                client.close()
                continue
            self._sockets += [client, agent]
            for work in ((self._pass_up, client, agent), (self._pass_down, agent, client)):
                threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    def _pass_up(self, client: socket.socket, agent: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                agent.sendall(data)
        _close(client, agent)

    def _pass_down(self, agent: socket.socket, client: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while received := agent.recv(_CHUNK):
                faults = self.faults
                data, goes_on = self._harm(faults, bytearray(received), sent)
                self._wait_turn(faults, len(data))
                client.sendall(data)
                sent += len(data)
                if not goes_on:
                    if faults.stall_after is not None:
                        return
                    break
        _close(client, agent)

    def _harm(self, faults: Faults, data: bytearray, sent: int) -> tuple[bytearray, bool]:
        for place in (faults.cut_after, faults.stall_after, faults.flip_at):
            if place is None or not sent <= place < sent + len(data):
                continue
            with self._lock:
                if self.happened >= faults.times:
                    return data, True
                self.happened += 1
            if place == faults.flip_at:
                data[place - sent] ^= 1
                return data, True
            return data[: place - sent], False
        return data, True

    def _wait_turn(self, faults: Faults, size: int) -> None:
        with self._lock:
            self.passed += size
            if faults.bytes_per_second is not None:
                time.sleep(size / faults.bytes_per_second)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
