"""The network between puller and agent: a proxy that breaks connections, or holds all bytes."""

from __future__ import annotations

import threading

from rig.hostile.fault_proxy import FaultProxy


class Hold:
    """A time in which no data passes."""

    def __init__(self) -> None:
        self.held = 0
        """How often data had to wait in it."""


class Absence:
    """A time in which connections are refused.

    Args:
        had_connections: whether it has ended any.
    """

    def __init__(self, *, had_connections: bool) -> None:
        self.had_connections = had_connections


class Network(FaultProxy):
    """A proxy whose data can be held for a while, in both directions; the connections stay open."""

    def __init__(self, agent_port: int, rate: float | None) -> None:
        super().__init__(agent_port, rate)
        self._passes = threading.Event()
        self._passes.set()
        self._holds: tuple[Hold, ...] = ()
        self._absences: list[Absence] = []

    def hold(self) -> Hold:
        """Hold all data until :meth:`release`."""
        hold = Hold()
        self._holds += (hold,)
        self._passes.clear()
        return hold

    def release(self, hold: Hold) -> None:
        """Let data pass, unless it is held by another one."""
        self._holds = tuple(each for each in self._holds if each is not hold)
        if not self._holds:
            self._passes.set()

    def vanish(self) -> Absence:
        """Cut all connections, and refuse new ones until :meth:`come_back`."""
        is_first = not self._absences
        absence = Absence(had_connections=is_first and self.refuse())
        self._absences.append(absence)
        return absence

    def come_back(self, absence: Absence) -> None:
        """Accept connections, unless there is another absence."""
        if absence in self._absences:
            self._absences.remove(absence)
            if not self._absences:
                self.accept_again()

    def recover(self) -> None:
        """Accept connections, let data pass, and forget what is planned."""
        self.forget_plans()
        for hold in self._holds:
            self.release(hold)
        for absence in tuple(self._absences):
            self.come_back(absence)

    def _wait_turn(self, size: int) -> None:
        self._before_request()
        super()._wait_turn(size)

    def _before_request(self) -> None:
        if not self._passes.is_set():
            for each in self._holds:
                each.held += 1
            self._passes.wait()
