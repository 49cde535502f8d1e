"""A made-up Plex on the VM, and processes that can be killed at each of their steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.host.plexservice import Sight
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rig.cutoverworld import World


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
        """The function, as this process calls it."""

        def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it is
            self.step()
            answer = real(*args, **kwargs)
            self.step()
            return answer

        return called


class MadeUpPlex:
    """Plex on the VM, as systemd shows it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running, self.starts, self.this_start = True, 1, "1"
        self.is_stubborn = False
        """It does not stop."""
        self.failing = 0
        """How many starts fail."""

    starting = ("true",)
    """Nobody runs it."""

    def is_running(self) -> bool:
        """As ``systemctl is-active``."""
        return self.running

    def may_run(self) -> bool:
        """As systemd can tell."""
        return self.running

    def look(self) -> Sight:
        """As systemd sees it: at once."""
        return Sight.RUNS if self.running else Sight.GONE

    def is_stop_under_way(self) -> bool:
        """It stops at once, or not at all."""
        return False

    def give_up_stop(self) -> None:
        """There is none."""

    def run(self) -> str:
        """As ``InvocationID``."""
        return self.this_start

    def stop(self, _seconds: float, ending: threading.Event) -> None:
        """As ``systemctl stop``."""
        self.world.agent.step()
        if self.is_stubborn or ending.is_set():
            raise CutoverRefused("it did not stop")
        self.running = False
        self.world.agent.step()

    def start(self) -> None:
        """As ``systemctl start``."""
        self.world.agent.step()
        if self.failing:
            self.failing -= 1
            raise CutoverRefused("it did not start")
        self.begin()
        self.world.agent.step()

    def left(self) -> list[str]:
        """All there is of it."""
        return ["Plex"] if self.running else []

    def check_fence(self, _path: str) -> None:
        """It is looked at by :meth:`begin`."""

    def begin(self) -> None:
        """Whoever starts it: not where the fence is, and not twice."""
        if not self.running and not self.world.control.fence.is_up():
            self.running = True
            self.starts += 1
            self.this_start = str(self.starts)
