"""The network between puller and agent: a proxy that breaks connections, or holds all bytes."""

from __future__ import annotations

import threading

from rig.hostile.fault_proxy import FaultProxy


class Network(FaultProxy):
    """A proxy whose data can be held for a while, in both directions; the connections stay open."""

    def __init__(self, agent_port: int, rate: float | None) -> None:
        super().__init__(agent_port, rate)
        self._passes = threading.Event()
        self._passes.set()
        self._is_gone = False
        self.held = 0
        """How often data had to wait."""

    def hold(self) -> None:
        """Hold all data."""
        self._passes.clear()

    def vanish(self) -> bool:
        """Cut all connections, and refuse new ones; return whether there were any."""
        if self._is_gone:
            return False
        self._is_gone = True
        return self.refuse()

    def recover(self) -> None:
        """Accept connections, and let data pass."""
        self._passes.set()
        if self._is_gone:
            self.accept_again()
            self._is_gone = False

    def _wait_turn(self, size: int) -> None:
        self._before_request()
        super()._wait_turn(size)

    def _before_request(self) -> None:
        if not self._passes.is_set():
            self.held += 1
            self._passes.wait()
