"""A TCP proxy between puller and agent, with a planned fault for each connection."""

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
"""SO_LINGER on, with 0 seconds: unsent data is dropped."""
_MORE_THAN_CONTROL = 256 * 1024
"""Bytes from the agent that only a connection with frames carries, with a small library."""


@dataclass(frozen=True)
class Cut:
    """Reset the connection (RST) after so many bytes from the agent."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Pass on so many bytes from the agent, then none. The connection stays open."""

    after: int


@dataclass(frozen=True)
class Flip:
    """Flip one bit of the byte at this position in the agent's data."""

    at: int


Fault = Cut | Stall | Flip


class FaultProxy:
    """Listens on :attr:`port`. All attributes may be changed while connections are open.

    Args:
        agent_port: the agent's port.
        rate: bytes per second from the agent, over all connections; None for no limit.
    """

    def __init__(self, agent_port: int, rate: float | None = None) -> None:
        self.agent_port = agent_port
        self.rate = rate
        self.source = "127.0.0.1"
        """The address of this machine that the agent sees."""
        self.happened: list[Fault] = []
        """Each fault that took place."""
        self.bytes_passed = 0
        """Number of all bytes from the agent."""
        self._planned: deque[Fault] = deque()
        self._planned_for_frames: deque[Fault] = deque()
        self._always: Fault | None = None
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._open: set[socket.socket] = set()
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """Start to listen."""
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut all connections, and stop listening."""
        self.refuse()

    def plan(self, *faults: Fault) -> None:
        """Plan one fault for each of the next connections."""
        with self._lock:
            self._planned.extend(faults)

    def plan_for_frames(self, *faults: Fault) -> None:
        """Plan one fault for each of the next connections that turn out to carry frames.

        Positions are counted from where that is known.
        """
        with self._lock:
            self._planned_for_frames.extend(faults)

    def forget_plans(self) -> None:
        """Forget the planned faults that no connection has got yet."""
        with self._lock:
            self._planned.clear()
            self._planned_for_frames.clear()

    def always(self, fault: Fault | None) -> None:
        """Set the ``fault`` of every new connection after the planned ones."""
        self._always = fault

    def refuse(self) -> bool:
        """Cut all connections; return whether there were any.

        The kernel refuses new ones until :meth:`accept_again`.
        """
        with contextlib.suppress(OSError):  # it refuses already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        return self.cut_all()

    def accept_again(self) -> None:
        """Listen on the same port again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.__enter__()

    def cut_all(self) -> bool:
        """End all open connections (FIN), including stalled ones; return whether there were any."""
        self._released.set()
        self._released = threading.Event()
        with self._lock:
            for each in self._open:
                _cut(each)
            return bool(self._open)

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
        """Pass on one connection in both directions until a side or its fault ends it."""
        upwards = threading.Thread(target=self._upwards, args=(client, agent), daemon=True)
        upwards.start()
        end = _cut
        with contextlib.suppress(OSError):
            if isinstance(self._downwards(agent, client, fault), Cut):
                end = _reset
        end(agent)
        end(client)
        upwards.join()
        with self._lock:
            self._open -= {client, agent}
        agent.close()
        client.close()

    def _upwards(self, client: socket.socket, agent: socket.socket) -> None:
        """Pass on all data from the puller, and its end."""
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                self._before_request()
                agent.sendall(data)
            agent.shutdown(socket.SHUT_WR)

    def _before_request(self) -> None:
        """Do nothing before data from the puller is passed on."""

    def _downwards(
        self, agent: socket.socket, client: socket.socket, fault: Fault | None
    ) -> Fault | None:
        """Pass on the agent's data until its end, or until a fault, which is returned."""
        released = self._released
        sent = 0
        may_carry_frames = fault is None
        while True:
            if may_carry_frames and sent >= _MORE_THAN_CONTROL:
                fault, sent, may_carry_frames = self._next_for_frames(), 0, False
            left = fault.after - sent if isinstance(fault, Cut | Stall) else _CHUNK
            if left == 0 and fault is not None:
                self.happened.append(fault)
                if isinstance(fault, Stall):
                    released.wait()
                return fault
            data = bytearray(agent.recv(min(left, _CHUNK)))
            if not data:
                return None
            if isinstance(fault, Flip) and sent <= fault.at < sent + len(data):
                data[fault.at - sent] ^= 1
                self.happened.append(fault)
            self._wait_turn(len(data))
            client.sendall(data)
            sent += len(data)

    def _next_for_frames(self) -> Fault | None:
        with self._lock:
            return self._planned_for_frames.popleft() if self._planned_for_frames else None

    def _wait_turn(self, size: int) -> None:
        with self._lock:
            self.bytes_passed += size
            if self.rate is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.rate
            pause = self._free_at - now
        time.sleep(pause)


def _cut(each: socket.socket) -> None:
    """End a connection for its peer, and wake the threads that wait for it here."""
    with contextlib.suppress(OSError):  # it is closed already
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        each.shutdown(socket.SHUT_RDWR)


def _reset(each: socket.socket) -> None:
    """Wake the threads that wait here. The peer sees nothing until the close, which resets."""
    with contextlib.suppress(OSError):  # it is closed already
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        each.shutdown(socket.SHUT_RD)
