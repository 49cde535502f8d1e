"""A question about Plex is not answered during a commit: the cutover is undone, and never later.

The puller discards a move whose commit was refused. A commit after that would leave no server.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from rig.cutover.plex import Killed
from rig.cutover.world import LEASE, World

from agent.cutover import record
from shared.durable import write_durably
from shared.errors import CutoverEnded, CutoverRefused
from shared.wire.protocol import CutoverRequest, SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REQUEST = CutoverRequest("a" * 32, "pod")
QUESTIONS = ["left", "run"]
PROOFS = [1, 2]
"""The proofs of a commit: before the fence is up, and after it."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a VM with a Plex that runs."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "elsewhere").mkdir()
    world = World(tmp_path / "vm", tmp_path / "elsewhere", lambda _: None)
    with world.patched():
        yield world


@pytest.fixture
def snapshot(world: World) -> str:
    """Stop Plex, scan, and return the snapshot's name."""
    world.control.begin(REQUEST)
    return world.store.scan(SnapshotRequest("cold")).id


def unanswered(real: Callable[[], Any], number: int) -> Callable[[], Any]:
    """Return the question, whose call with this ``number`` is not answered."""
    calls = 0

    def ask() -> Any:  # noqa: ANN401 - as the question
        """Fail once."""
        nonlocal calls
        calls += 1
        if calls == number:
            raise CutoverRefused("systemd does not answer")
        return real()

    return ask


def is_as_before(world: World) -> None:
    """Assert that Plex runs, and that nothing keeps it from starting again."""
    assert world.control.standing().phase == "idle"
    assert world.plex.running
    assert not world.control.fence.is_up()


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("proof", PROOFS)
def test_commit_without_an_answer_is_undone(
    world: World, snapshot: str, question: str, proof: int
) -> None:
    """Neither the undo by the puller nor the agent's periodic work commits it afterwards."""
    ask = unanswered(getattr(world.plex, question), proof)
    with (
        patch.object(world.plex, question, ask),
        pytest.raises(CutoverEnded, match="systemd does not answer"),
    ):
        world.control.commit(REQUEST.id, snapshot)
    world.control.undo(REQUEST.id, "the puller gave up")
    world.wait(LEASE)
    is_as_before(world)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("proof", PROOFS)
def test_pull_whose_commit_has_no_answer_once(world: World, question: str, proof: int) -> None:
    """It stops Plex another time, and publishes what is committed then."""
    real, control = getattr(world.plex, question), world.control
    commit = control.commit

    def ask_during_commit(name: str, snapshot: str) -> object:
        """Have one question of the first commit fail."""
        control.commit = commit  # type: ignore[method-assign]
        with patch.object(world.plex, question, unanswered(real, proof)):
            return commit(name, snapshot)

    with patch.object(control, "commit", ask_during_commit):
        ended = world.pull()
    world.wait(LEASE)
    assert ended == "done"
    assert world.plex.starts == 2
    assert world.control.standing().phase == "committed"
    assert world.published == [world.volume]


@pytest.mark.parametrize("proof", PROOFS)
def test_pull_whose_commits_have_no_answer(world: World, proof: int) -> None:
    """It is not done, and Plex runs."""
    real, control = world.plex.left, world.control
    commit = control.commit

    def ask_during_commit(name: str, snapshot: str) -> object:
        """Have one question of each commit fail."""
        with patch.object(world.plex, "left", unanswered(real, proof)):
            return commit(name, snapshot)

    with patch.object(control, "commit", ask_during_commit):
        ended = world.pull()
    assert ended != "done"
    world.wait(LEASE)
    is_as_before(world)
    assert not world.published


def test_undo_of_a_commit_that_was_interrupted(world: World, snapshot: str) -> None:
    """A puller that cannot publish has it undone, although the agent could finish it."""
    with patch.object(world.control.fence, "put_up", side_effect=Killed), pytest.raises(Killed):
        world.control.commit(REQUEST.id, snapshot)
    assert world.control.standing().phase == "committing"
    world.control.undo(REQUEST.id, "the name is taken")
    world.wait(LEASE / 4)
    is_as_before(world)


def test_commit_without_an_answer_on_a_full_disk(world: World, snapshot: str) -> None:
    """An undo that is not durable does not count as refused: the next agent may commit."""
    ask = unanswered(world.plex.left, 2)

    def full(path: str, content: bytes, mode: int = 0o600) -> None:
        """Have no room for the record of an undo."""
        if b'"phase":"undoing"' in content or b'"phase":"idle"' in content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_durably(path, content, mode)

    with (
        patch.object(world.plex, "left", ask),
        patch.object(record, "write_durably", full),
        pytest.raises(OSError, match="No space"),
    ):
        world.control.commit(REQUEST.id, snapshot)
    with suppress(CutoverEnded):
        world.control.undo(REQUEST.id, "the puller gave up")
    world.wait(LEASE)
    is_as_before(world)
