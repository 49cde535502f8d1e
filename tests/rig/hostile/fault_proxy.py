"""A TCP proxy between puller and agent whose faults are given connection by connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 64 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER on, of no seconds: what is not sent yet is dropped."""


@dataclass(frozen=True)
class Cut:
    """End the connection once so many bytes have come from the agent."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Pass on so many bytes from the agent, then nothing more; the connection stays open."""

    after: int


@dataclass(frozen=True)
class Flip:
    """Turn over one bit of the byte at this place of what the agent sends."""

    at: int


Fault = Cut | Stall | Flip


class FaultProxy:
    """Listens on :attr:`port`; all of it can be changed while connections are open.

    Args:
        agent_port: where the agent listens.
        rate: bytes a second from the agent, over all connections together; None: unlimited.
    """

    def __init__(self, agent_port: int, rate: float | None = None) -> None:
        self.agent_port = agent_port
        self.rate = rate
        self.source = "127.0.0.1"
        """The address of this machine that the agent sees."""
        self.happened: list[Fault] = []
        """Each fault that really took place."""
        self.bytes_passed = 0
        """Bytes from the agent in all."""
        self._planned: deque[Fault] = deque()
        self._always: Fault | None = None
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._open: set[socket.socket] = set()
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """Begin to listen."""
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut everything, and listen no more."""
        self.refuse()

    def plan(self, *faults: Fault) -> None:
        """The next connections get these faults, one each; those after them none."""
        with self._lock:
            self._planned.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Every new connection gets ``fault``, once what is planned is used up."""
        self._always = fault

    def refuse(self) -> None:
        """Cut all connections; the kernel refuses new ones until :meth:`accept_again`."""
        with contextlib.suppress(OSError):  # refusing already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def accept_again(self) -> None:
        """Listen on the same port again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.__enter__()

    def cut_all(self) -> None:
        """Cut all open connections, stalled ones too."""
        self._released.set()
        self._released = threading.Event()
        with self._lock:
            for each in self._open:
                _cut(each)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                agent = socket.create_connection(
                    ("127.0.0.1", self.agent_port), source_address=(self.source, 0)
                )
            except OSError:
                _cut(client)
                client.close()
                continue
            with self._lock:
                fault = self._planned.popleft() if self._planned else self._always
                self._open |= {client, agent}
            threading.Thread(target=self._carry, args=(client, agent, fault), daemon=True).start()

    def _carry(self, client: socket.socket, agent: socket.socket, fault: Fault | None) -> None:
        """Both directions of one connection, until either side ends it or its fault does."""
        upwards = threading.Thread(target=_copy, args=(client, agent), daemon=True)
        upwards.start()
        with contextlib.suppress(OSError):
            self._downwards(agent, client, fault)
        _cut(agent)
        _cut(client)
        upwards.join()
        with self._lock:
            self._open -= {client, agent}
        agent.close()
        client.close()

    def _downwards(self, agent: socket.socket, client: socket.socket, fault: Fault | None) -> None:
        released = self._released
        sent = 0
        while True:
            left = fault.after - sent if isinstance(fault, Cut | Stall) else _CHUNK
            if left == 0 and fault is not None:
                self.happened.append(fault)
                if isinstance(fault, Stall):
                    released.wait()
                return
            data = bytearray(agent.recv(min(left, _CHUNK)))
            if not data:
                return
            if isinstance(fault, Flip) and sent <= fault.at < sent + len(data):
                data[fault.at - sent] ^= 1
                self.happened.append(fault)
            self._wait_turn(len(data))
            client.sendall(data)
            sent += len(data)

    def _wait_turn(self, size: int) -> None:
        with self._lock:
            self.bytes_passed += size
            if self.rate is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.rate
            pause = self._free_at - now
        time.sleep(pause)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on until the source's end, and pass the end on too."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _cut(each: socket.socket) -> None:
    """End ``each`` for its peer, and wake whoever waits on it here."""
    with contextlib.suppress(OSError):  # closed by now
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        each.shutdown(socket.SHUT_RDWR)
