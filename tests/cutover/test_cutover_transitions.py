"""A request that does not fit the cutover's phase is refused, and leaves the record unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from rig.cutover.world import World

from agent.cutover import control
from agent.cutover.state import Cutover, begun, ended, held, why_undone
from shared.errors import CutoverEnded, CutoverRefused
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from pathlib import Path

    from shared.wire.protocol import CutoverPhase

OURS, OTHERS = CutoverRequest("a" * 32, "pod"), CutoverRequest("b" * 32, "another")
STOPPED = Cutover("stopped", OURS.id, OURS.puller, granted=10.0, until=70.0, serial=7)


@pytest.mark.parametrize("phase", ["stopping", "stopped", "committing", "committed"])
def test_repeated_request_to_stop_changes_nothing(phase: CutoverPhase) -> None:
    """A puller that repeats its request after a lost response does not stop Plex twice."""
    now = msgspec.structs.replace(STOPPED, phase=phase)
    assert begun(now, OURS, "later") is now


@pytest.mark.parametrize("phase", ["idle", "undoing"])
def test_cutover_that_was_undone_cannot_begin_again(phase: CutoverPhase) -> None:
    """A late repetition of a request whose cutover was undone leaves Plex running."""
    now = msgspec.structs.replace(STOPPED, phase=phase, why="the lease has expired")
    with pytest.raises(CutoverEnded, match="the lease has expired"):
        begun(now, OURS, "later")


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        ("committed", "has moved already"),
        ("undoing", "still being started"),
        ("stopping", "under way, for pod"),
        ("stopped", "under way, for pod"),
        ("committing", "under way, for pod"),
    ],
)
def test_second_puller_is_refused_during_a_cutover(phase: CutoverPhase, reason: str) -> None:
    """Two pullers never share a stop, so no library is published twice."""
    with pytest.raises(CutoverRefused, match=reason):
        begun(msgspec.structs.replace(STOPPED, phase=phase), OTHERS, "later")


def test_new_cutover_keeps_serial_and_history() -> None:
    """A record after an undo stays newer than its copies, and earlier stops are not forgotten."""
    idle = ended(msgspec.structs.replace(STOPPED, phase="undoing"))
    new = begun(idle, OTHERS, "later")
    assert (new.phase, new.id, new.since) == ("stopping", OTHERS.id, "later")
    assert (new.serial, new.history) == (idle.serial, idle.history)


@pytest.mark.parametrize(
    ("now", "name", "seconds", "error"),
    [
        (STOPPED, OTHERS.id, 20.0, CutoverEnded),
        (STOPPED, OURS.id, 70.0, CutoverEnded),
        (STOPPED, OURS.id, 5.0, CutoverEnded),
        (msgspec.structs.replace(STOPPED, phase="undoing"), OURS.id, 20.0, CutoverEnded),
        (msgspec.structs.replace(STOPPED, is_overdue=True), OURS.id, 20.0, CutoverRefused),
    ],
    ids=["another name", "lease expired", "rebooted", "undone", "stopped for too long"],
)
def test_cutover_without_a_valid_lease_is_not_committed(
    now: Cutover, name: str, seconds: float, error: type[Exception]
) -> None:
    """After the lease has ended Plex may run, so nothing is renewed or committed."""
    with pytest.raises(error):
        held(now, name, seconds, ("stopped", "committed"))


def test_committed_cutover_needs_no_lease() -> None:
    """A repeated commit succeeds however late it comes."""
    committed = msgspec.structs.replace(STOPPED, phase="committed")
    assert held(committed, OURS.id, 1e6, ("stopped", "committed")) is committed


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (msgspec.structs.replace(STOPPED, why="asked for"), "asked for"),
        (msgspec.structs.replace(STOPPED, bound=30.0, max_seconds=20.0), "20 s, the most"),
        (STOPPED, "lease has expired"),
        (msgspec.structs.replace(STOPPED, phase="stopping"), "agent was killed"),
    ],
)
def test_undo_states_its_reason(now: Cutover, reason: str) -> None:
    """The log and the puller learn why Plex was started again."""
    assert reason in why_undone(now, 100.0)


def test_request_to_stop_arrives_after_its_undo(tmp_path: Path) -> None:
    """A puller that has given up does not have Plex stopped by a request that waited."""
    world = World(tmp_path, tmp_path / "elsewhere", lambda _: None)
    with pytest.raises(CutoverEnded, match="no such cutover"):
        world.control.undo(OURS.id, "the puller gave up")
    with pytest.raises(CutoverEnded, match="undone before it began"):
        world.control.begin(OURS)
    assert world.plex.running
    assert world.control.standing().phase == "idle"
    assert world.control.begin(OTHERS).phase == "stopped"


def test_names_of_late_undos_take_no_more_memory_than_some(tmp_path: Path) -> None:
    """Only the last names are remembered, of which a request can still be under way."""
    world = World(tmp_path, tmp_path / "elsewhere", lambda _: None)
    for number in range(control._WITHDRAWN + 1):
        with pytest.raises(CutoverEnded):
            world.control.undo(f"{number:032x}", "the puller gave up")
    assert world.control.begin(CutoverRequest(f"{0:032x}", "pod")).phase == "stopped"
