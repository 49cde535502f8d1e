"""A made-up Plex on the VM, and processes that can be killed at each of their steps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agent.plex.service import Sight
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rig.cutover.world import World


_UNIT = "plexmediaserver.service"


class Killed(BaseException):
    """A process is gone: nothing of it runs any more."""


class Lifeline:
    """A process that may be killed at any of its durable steps."""

    def __init__(self) -> None:
        self.is_dead = False
        self.left: int | None = None
        """Steps that it still takes; None: all of them."""
        self.visitor: tuple[int, Callable[[], None]] | None = None
        """What somebody else does before one of its next steps."""

    def step(self) -> None:
        """Before and after each durable step."""
        if self.visitor is not None:
            steps, visit = self.visitor
            self.visitor = (steps - 1, visit) if steps else None
            if not steps:
                visit()
        if self.left is not None:
            self.left -= 1
            self.is_dead = self.is_dead or self.left < 0
        if self.is_dead:
            raise Killed

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as this process calls it."""

        def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it is
            self.step()
            answer = real(*args, **kwargs)
            self.step()
            return answer

        return called


class MadeUpPlex:
    """Plex on the VM: a unit of systemd, or a container that two commands stop and start.

    A container whose stop takes longer than the agent waits goes on stopping, and an order to start
    it does nothing meanwhile. A unit's start waits for the stop that is under way.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._is_up, self.starts, self.this_start = True, 1, "1"
        self.is_unit = True
        self.is_stubborn = False
        """It does not stop."""
        self.failing = 0
        """How many starts fail."""
        self.stop_takes = 0.0
        """Seconds."""
        self._down_at: float | None = None
        """When the stop that is under way ends."""
        self.is_started_at_boot = True
        self._stopped_by: object = None
        """Which process of the agent waits for it."""

    @property
    def starting(self) -> tuple[str, ...]:
        """Return the start command for the record; nobody runs it."""
        return ("systemctl", "start", "--", _UNIT) if self.is_unit else ("true",)

    @property
    def running(self) -> bool:
        """Whether it runs; also while it stops."""
        if self._down_at is not None and self.world.clock >= self._down_at:
            self.cut()
        return self._is_up

    def cut(self) -> None:
        """Have it end at once."""
        self._is_up, self._down_at = False, None

    def begin(self) -> None:
        """Start it, unless something keeps systemd from that, or it runs."""
        if not self.running and not (self.is_unit and self.world.is_blocked()):
            self._is_up = self.is_started_at_boot = True
            self.starts += 1
            self.this_start = str(self.starts)

    def is_running(self) -> bool:
        """As ``systemctl is-active``."""
        return self.running

    def may_run(self) -> bool:
        """Return the state, as far as it is known."""
        return self.running or not self.is_unit

    def look(self) -> Sight:
        """As ``systemctl show`` tells, or processes and the port do."""
        if not self.running:
            return Sight.GONE
        return Sight.RUNS if self.is_unit and self._down_at is None else Sight.PRESENT

    def is_stop_under_way(self) -> bool:
        """Whether this process's own stop_command has not ended yet."""
        is_ours = self._stopped_by is self.world.control
        return self.running and not self.is_unit and self._down_at is not None and is_ours

    def give_up_stop(self) -> None:
        """Killing the client of a container engine ends nothing."""

    def run(self) -> str:
        """As ``InvocationID``."""
        return self.this_start if self.is_unit else ""

    def stop(self, seconds: float, ending: threading.Event) -> None:
        """As ``systemctl stop``, or a stop_command."""
        self.world.agent.step()
        if self.is_stubborn or ending.is_set():
            raise CutoverRefused("it did not stop")
        if self.running:
            self._down_at = self.world.clock + self.stop_takes
            self._stopped_by = self.world.control
        self.is_started_at_boot = self.is_unit  # a stop_command has to stop it for good
        self.world.agent.step()
        self.world.clock += min(seconds, self.stop_takes)
        if self.running:
            raise CutoverRefused(f"it did not stop within {seconds:.0f} s")
        self.world.agent.step()

    def start(self) -> None:
        """As ``systemctl start``, or a start_command."""
        self.world.agent.step()
        if self.failing:
            self.failing -= 1
            raise CutoverRefused("it did not start")
        if self.is_unit and self._down_at is not None:
            self.world.clock = max(self.world.clock, self._down_at)
        self.begin()
        self.world.agent.step()

    def left(self) -> list[str]:
        """All there is of it."""
        return ["Plex"] if self.running else []

    def check_fence(self, path: str) -> None:
        """The drop-in is there; :meth:`World.is_blocked` looks at the fence."""
        assert os.path.isabs(path)
