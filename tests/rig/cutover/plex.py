"""A simulated Plex on the VM, and processes that can be killed at each of their steps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agent.plex.service import PlexService, Sight
from rig.cutover.library import DATABASE, SERVER
from shared.errors import CutoverRefused
from shared.plex.sqlite_query import Use

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rig.cutover.world import World


_UNIT = "plexmediaserver.service"
_PID = 7


class Killed(BaseException):
    """Ends a process: none of our code catches it."""


class Lifeline:
    """A process that may be killed at any of its durable steps."""

    def __init__(self) -> None:
        self.is_dead = False
        self.left: int | None = None
        """Number of steps until it is killed; None if it is not."""
        self.visitor: tuple[int, Callable[[], None]] | None = None
        """Number of steps, and another party's action that happens after so many steps."""

    def step(self) -> None:
        """Raise :class:`Killed` if this process is dead. Called before and after a durable step."""
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


class MadeUpPlex(PlexService):
    """Plex on the VM: a unit of systemd, or a container that two commands stop and start.

    If a container's stop takes longer than the agent waits, the stop continues, and a start does
    nothing meanwhile. A unit's start waits for the end of a stop. A hidden container shows only by
    the locks on its databases that it runs.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._is_up, self.starts, self.this_start = True, 1, "1"
        self.is_unit = True
        self.is_hidden = False
        """Whether the agent sees neither its processes nor its port. No unit is hidden."""
        self.is_elsewhere = False
        """Whether it runs hidden beside the unit or container of the settings, which is down."""
        self.is_stubborn = False
        """Whether it ignores stops."""
        self.is_other_stopped = False
        """Whether the stop command succeeds, but stops another container."""
        self.failing = 0
        """Number of next starts that fail."""
        self.unanswered = 0
        """Number of next queries that systemd, or the engine, does not answer."""
        self.stop_takes = 0.0
        """Seconds that a stop takes."""
        self._down_at: float | None = None
        """Time at which the stop under way ends."""
        self.is_started_at_boot = True
        self._stopped_by: object = None
        """The process of the agent that waits for the stop."""
        self._is_past_fence = False
        """Whether it was started while the fence was up, and the agent has not seen its locks."""

    @property
    def starting(self) -> tuple[str, ...]:
        """Return the start command for the record. It is never run."""
        return ("systemctl", "start", "--", _UNIT) if self.is_unit else ("true",)

    @property
    def running(self) -> bool:
        """Whether it runs, or still stops."""
        if self._down_at is not None and self.world.clock >= self._down_at:
            self.cut()
        return self._is_up

    def cut(self) -> None:
        """End it at once."""
        self._is_up, self._down_at = False, None

    def begin(self) -> None:
        """Start it, unless it runs or a block keeps systemd from starting it."""
        is_blocked = self.is_unit and not self.is_elsewhere and self.world.is_blocked()
        if not self.running and not is_blocked:
            self._is_up = self.is_started_at_boot = True
            self.starts += 1
            self.this_start = str(self.starts)
            self._is_past_fence = self.world.control.fence.is_up()

    @property
    def is_visible_now(self) -> bool:
        """Whether it runs, and the agent can see that."""
        return self.running and not self.is_hidden and not self.is_elsewhere

    @property
    def runs_past_fence(self) -> bool:
        """Whether it runs hidden after a start that nothing prevents, and nothing shows.

        That is a start after the last proof, which the agent makes with the fence up.
        """
        return self.running and self.is_hidden and self._is_past_fence

    def database_folder(self) -> str:
        """Return the path of the folder of its databases."""
        return str((self.world.vm / SERVER / DATABASE).parent)

    def find_use(self, _path: str) -> Use:
        """Return who has one of its databases open: Plex, as long as it runs."""
        self._is_past_fence = self._is_past_fence and not self.running
        return Use.OTHERS if self.running else Use.NONE

    def find_holder(self, _path: str) -> int | None:
        """Return its pid, as long as it runs."""
        return _PID if self.running else None

    def shows(self, pid: int) -> bool:
        """Return whether the pid is that of a Plex whose processes are seen."""
        assert pid == _PID
        return self.is_visible_now

    def is_running(self) -> bool:
        """Return whether it runs, as ``systemctl is-active`` does."""
        return self.is_visible_now

    def may_run(self) -> bool:
        """Return whether it runs, or may run unseen."""
        return self.is_visible_now or not (self.is_unit or self.is_elsewhere)

    def look(self) -> Sight:
        """Return its state, as from ``systemctl show`` or from processes and the port."""
        if not self.is_visible_now:
            return Sight.GONE
        return Sight.RUNS if self.is_unit and self._down_at is None else Sight.PRESENT

    def is_stop_under_way(self) -> bool:
        """Return whether the stop command of this process still runs."""
        is_ours = self._stopped_by is self.world.control
        return self.running and not self.is_unit and self._down_at is not None and is_ours

    def give_up_stop(self) -> None:
        """Do nothing: killing the client of a container engine does not end the stop."""

    def run(self) -> str:
        """Return the identifier of this start, as ``InvocationID``; empty for a container."""
        self._answer()
        return self.this_start if self.is_unit else ""

    def stop(self, seconds: float, ending: threading.Event) -> None:
        """Stop it as ``systemctl stop`` or a stop command does."""
        self.world.agent.step()
        if self.is_stubborn or ending.is_set():
            raise CutoverRefused("it did not stop")
        if self.is_other_stopped and not self.is_unit:
            return
        if self.running:
            if self._down_at is None:  # a second order does not begin the stop again
                self._down_at = self.world.clock + self.stop_takes
            self._stopped_by = self.world.control
        self.is_started_at_boot = self.is_unit  # a stop command must also prevent a start at boot
        self.world.agent.step()
        self.world.clock += min(seconds, self.stop_takes)
        if self.running:
            raise CutoverRefused(f"it did not stop within {seconds:.0f} s")
        self.world.agent.step()

    def start(self) -> None:
        """Start it as ``systemctl start`` or a start command does."""
        self.world.agent.step()
        if self.failing:
            self.failing -= 1
            raise CutoverRefused("it did not start")
        if self.is_unit and self._down_at is not None:
            self.world.clock = max(self.world.clock, self._down_at)
        self.begin()
        self.world.agent.step()

    def left(self) -> list[str]:
        """Return its processes."""
        self._answer()
        return ["Plex"] if self.is_visible_now else []

    def _answer(self) -> None:
        """Raise an error if this query is one that is not answered."""
        if self.unanswered:
            self.unanswered -= 1
            raise CutoverRefused("no answer")

    def check_fence(self, path: str) -> None:
        """Accept the fence, because :meth:`World.is_blocked` reads it."""
        assert os.path.isabs(path)
