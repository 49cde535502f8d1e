"""Whole moves in one process, with faults at every point: each move ends in one of two ways.

The model of :mod:`rig.cutover.machine` says which.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from rig.cutover.machine import CutoverMachine, seen
from rig.cutover.volume import MOVE, Request

from initpuller.pull.options import Mode
from initpuller.volume.decision import OnExisting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run(examples: int, steps: int) -> int:
    """Run ``examples`` stories of ``steps`` steps, and return the number of events in them."""
    seen.clear()
    shared_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
    folder = tempfile.TemporaryDirectory
    with folder(prefix="model-", dir=shared_memory) as one, folder(prefix="model-") as other:
        CutoverMachine.parents = (one, other)
        run_state_machine_as_test(
            CutoverMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                suppress_health_check=list(HealthCheck),
            ),
        )
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")  # noqa: T201 - shows what the stories covered
    assert {"move: done", "move: killed", "move: AgentUnreachable"} <= seen.keys()
    return seen.total()


def test_moves_with_faults_end_in_one_of_two_ways() -> None:
    """Enough stories to fail if any line of the agent's steps is deleted end in one of two ways."""
    run(400, 12)


@pytest.mark.long
def test_many_moves_with_faults_end_in_one_of_two_ways() -> None:
    """Ten times as many stories end in one of two ways."""
    print(f"{run(4_000, 14)} events in 4000 stories")  # noqa: T201 - a figure for docs


class Script:
    """The draws of hypothesis in a story, in their order; after the last, nothing happens."""

    def __init__(self, *drawn: str | int) -> None:
        self._drawn = list(drawn)

    def draw(self, _strategy: object, label: str = "") -> Any:  # noqa: ANN401, ARG002 - as theirs
        """Return the next one."""
        return self._drawn.pop(0) if self._drawn else "nothing"


@contextmanager
def story(tmp_path: Path, kind: str = "container") -> Iterator[CutoverMachine]:
    """Begin a story with a container that does not run; check its end, as the model does."""
    with tempfile.TemporaryDirectory() as elsewhere:
        CutoverMachine.parents = (str(tmp_path), elsewhere)
        machine = CutoverMachine()
        machine.begin(is_running=False, kind=kind, stop_takes=0.0)
        yield machine
        machine.never_two_and_nothing_lost()
        machine.teardown()


def test_container_that_ignores_its_stop_after_the_move(tmp_path: Path) -> None:
    """Two servers run then, as the documentation says; after an undo, the library moves again."""
    with story(tmp_path) as machine:
        machine.pull_again(Script())
        machine.plex_does_not_stop(is_stubborn=True)
        machine.somebody_starts_plex()


def test_container_that_writes_between_commit_and_publication(tmp_path: Path) -> None:
    """A puller that was killed after the commit publishes what was committed, not what is newer."""
    with story(tmp_path) as machine:
        killed = ("puller killed later", 5, "somebody starts plex later", 10)
        machine.pull_again(Script(*["nothing"] * 8, *killed))
        assert machine.world.plex.running
        assert machine.world.volume.receipt is None
        machine.plex_writes()


@pytest.mark.parametrize("point", range(10))
def test_hidden_container_that_is_started_at_a_point_of_a_move(tmp_path: Path, point: int) -> None:
    """A Plex of which only locks are seen, and which changes nothing, does not run on a copy."""
    with story(tmp_path, "hidden container") as machine:
        machine.pull_again(Script(*["nothing"] * point, "somebody starts plex"))
        assert machine.world.published
        assert not machine.world.plex.running


@pytest.mark.parametrize("steps", range(12))
def test_hidden_container_that_is_started_at_a_step_of_the_commit(
    tmp_path: Path, steps: int
) -> None:
    """A start before the fence is up prevents the commit; nothing shows one after the last proof.

    The end of the story tells them apart.
    """
    with story(tmp_path, "hidden container") as machine:
        machine.pull_again(Script(*["nothing"] * 9, "somebody starts plex later", steps))


@pytest.mark.parametrize("kind", ["unit", "container"])
def test_service_that_is_down_moves_no_plex_beside_it(tmp_path: Path, kind: str) -> None:
    """Plex runs in a container that the settings do not name: nothing is published beside it."""
    with story(tmp_path, kind) as machine:
        machine.somebody_starts_plex()
        machine.world.plex.is_elsewhere = True
        machine.pull_again(Script())
        assert machine.world.plex.running
        assert not machine.world.volume.library.exists()


def test_stop_command_that_stops_nothing_moves_no_hidden_container(tmp_path: Path) -> None:
    """Plex runs on, and nothing is published, until the command is corrected."""
    with story(tmp_path, "hidden container") as machine:
        machine.somebody_starts_plex()
        machine.stop_command_stops_nothing(is_other_stopped=True)
        machine.pull_again(Script())
        assert machine.world.plex.running
        assert not machine.world.volume.library.exists()


@pytest.mark.parametrize(
    ("ended", "request_", "is_foreign", "effect", "found"),
    [
        ("done", MOVE, False, "nothing", "no receipt"),
        ("done", Request(on_existing=OnExisting.SET_ASIDE), True, "nothing", "was not moved"),
        ("done", Request(on_existing=OnExisting.SET_ASIDE), True, "removed", "is gone"),
        ("done", Request(Mode.REHEARSE), False, "nothing", "no receipt of the rehearsal"),
        ("done", Request(Mode.PRESEED), False, "published", "has appeared"),
        ("AgentUnreachable", MOVE, False, "published", "has appeared"),
        ("AgentUnreachable", MOVE, True, "set aside", "has appeared or gone"),
        ("killed", MOVE, True, "removed", "is gone"),
    ],
)
def test_result_that_is_not_what_the_end_of_a_pull_says(
    tmp_path: Path,
    ended: str,
    request_: Request,
    is_foreign: bool,  # noqa: FBT001
    effect: str,
    found: str,
) -> None:
    """The model compares the volume with the end of each pull."""
    with story(tmp_path) as machine:
        volume = machine.world.volume
        machine.name(taken=is_foreign, volume=0)

        def pull(_request: Request) -> str:
            """Change the volume without a move."""
            if effect == "removed":
                shutil.rmtree(volume.library)
            elif effect == "set aside":
                volume.library.rename(volume.library.with_name("Library.set-aside-1"))
            elif effect == "published":
                volume.library.mkdir()
            return ended

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(machine.world, "pull", pull)
            with pytest.raises(AssertionError, match=found):
                machine.pull(Script(), request_, 0)
        shutil.rmtree(volume.library, ignore_errors=True)


def test_library_that_was_there_is_set_aside_or_left(tmp_path: Path) -> None:
    """The model accepts both, and a pull that refuses."""
    with story(tmp_path) as machine:
        volume = machine.world.volume
        machine.name(taken=True, volume=0)
        machine.pull(Script(), MOVE, 0)
        machine.pull(Script(), Request(on_existing=OnExisting.SKIP), 0)
        assert machine.world.published == []
        machine.pull(Script(), Request(on_existing=OnExisting.SET_ASIDE), 0)
        assert machine.world.published == [volume]
        assert volume.foreign < volume.folders()
