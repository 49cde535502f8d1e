"""The steps that make a volume of the state table: real pulls that are interrupted, and damage."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from agent.__main__ import main as agent_main
from rig.plex.commands import only_plex
from rig.volume import cut_at, pull, run_main
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

CUTOVER = {"PLEXODUS_NO_CUTOVER": "0"}


def cut(place: str, call: int = 1, *options: str) -> Callable[[Path, Agent], None]:
    """Return a step: a pull that ends where ``place`` is called."""

    def make(target: Path, agent: Agent) -> None:
        with cut_at(place, call):
            pull(target, agent, *options)

    return make


def undone(_target: Path, agent: Agent) -> None:
    """Return a step: the administrator undoes any cutover."""
    undo = run_main(
        agent_main, "undo", "--config", str(agent.settings), "--state", str(agent.state)
    )
    assert undo.code == 0, undo.text


def cut_over(place: str) -> Callable[[Path, Agent], None]:
    """Return a step: a pull with cutover, the first since an undo, that ends at ``place``."""

    def make(target: Path, agent: Agent) -> None:
        undone(target, agent)
        with only_plex(), cut_at(place):
            pull(target, agent, **CUTOVER)

    return make


def whole(target: Path, agent: Agent) -> None:
    """Return a step: a pull that succeeds."""
    assert pull(target, agent).code == ExitCode.OK


def rehearsed(target: Path, agent: Agent) -> None:
    """Return a step: a rehearsal that is published."""
    assert pull(target, agent, "--rehearse").code == ExitCode.OK


def taken_back(target: Path, agent: Agent) -> None:
    """Return a step: a pull that is killed right before it discards the rehearsal's receipt."""
    with cut_at("initpuller.volume.publish.unpublish.taken_back"):
        pull(target, agent)


def foreign(target: Path, _agent: Agent) -> None:
    """Return a step: a foreign library appears."""
    (target / "Library").mkdir()
    (target / "Library" / "mark").write_text("not ours")


def changed(target: Path, _agent: Agent) -> None:
    """Return a step: a Plex uses the library that has its final name."""
    (target / "Library" / "mark").write_text("not ours")


def rehearsal(place: str) -> Callable[[Path, Agent], None]:
    """Return a step: a rehearsal that ends where ``place`` is called."""
    return cut(place, 1, "--rehearse")


def without(*names: str) -> Callable[[Path, Agent], None]:
    """Return a step: something on the volume is removed."""

    def make(target: Path, _agent: Agent) -> None:
        for name in names:
            path = target / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make
