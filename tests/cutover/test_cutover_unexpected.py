"""Errors that nobody expects in the agent's work on a cutover do not end that work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent import daemon
from agent.cutover.control import CutoverControl

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Broken(CutoverControl):
    """A control of which every step fails with an error of an unexpected kind."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def tend(self) -> None:
        """Fail."""
        self._fail("tend")

    def started(self) -> None:
        """Fail."""
        self._fail("started")

    def leave(self) -> bool:
        """Fail."""
        self._fail("leave")
        return False

    def _fail(self, name: str) -> None:
        self.calls.append(name)
        b"\xff".decode()


async def test_unexpected_error_does_not_end_the_checks_of_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only process that starts Plex again tries again, although its watchdog is fed anyway."""
    monkeypatch.setattr(daemon, "_TEND", 0.0)
    control = Broken()
    task = asyncio.create_task(daemon._tend(control, 1))
    for _ in range(1000):
        await asyncio.sleep(0.01)
        if task.done() or len(control.calls) > 3:
            break
    assert not task.done()
    task.cancel()
    assert len(control.calls) > 3


async def test_unexpected_error_does_not_prevent_the_end_of_the_agent() -> None:
    """The agent ends in order, so that ExecStopPost starts Plex."""
    control = Broken()
    await daemon._leave(control)
    assert control.calls == ["leave"]


def test_unexpected_error_does_not_prevent_the_start_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ExecStopPost gets the path of the state folder, and the agent starts."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    control = Broken()
    daemon._started(control, str(tmp_path / "state"))
    assert control.calls == ["started"]
    assert (tmp_path / "state").read_text() == str(tmp_path / "state")
