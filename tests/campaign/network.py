"""The network between puller and agent: a proxy that breaks connections, or holds all bytes."""

from __future__ import annotations

import threading

from rig.hostile.fault_proxy import FaultProxy


class Network(FaultProxy):
    """A proxy whose data can be held for a while; the connections stay open."""

    def __init__(self, agent_port: int, rate: float | None) -> None:
        super().__init__(agent_port, rate)
        self._passes = threading.Event()
        self._passes.set()
        self._is_gone = False

    def hold(self) -> None:
        """Hold all data from the agent."""
        self._passes.clear()

    def vanish(self) -> None:
        """Cut all connections, and refuse new ones."""
        if not self._is_gone:
            self._is_gone = True
            self.refuse()

    def recover(self) -> None:
        """Accept connections, and let data pass."""
        self._passes.set()
        if self._is_gone:
            self.accept_again()
            self._is_gone = False

    def _wait_turn(self, size: int) -> None:
        self._passes.wait()
        super()._wait_turn(size)
