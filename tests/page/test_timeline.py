"""The steps of a move, from the lines of its log and the record of the cutover."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.host.migration_log import MigrationEvent
from agent.page import words
from agent.page.observer import events_in
from agent.page.story import MoveStory
from agent.page.timeline import Milestone, Stage, steps
from shared.wire.protocol import CutoverPhase, CutoverStanding

MOVE = (
    *("pull", "pass", "pass", "stop", "stopped", "pass", "unchanged"),
    *("committed", "done", "started", "migrated"),
)
PAIRED = {Milestone.PAIRED: ("2026-01-01T00:00:00+00:00", "")}


def standing(phase: CutoverPhase) -> CutoverStanding:
    """Return the record of a cutover in this phase."""
    return CutoverStanding(phase, "0" * 32, "pod", "2026-01-01T01:00:00+00:00", 0.0, "", "")


def told(*events: str) -> MoveStory:
    """Return the story of a log with a line a second."""
    story = MoveStory()
    for second, event in enumerate(events):
        story.add(MigrationEvent(f"2026-01-01T00:00:{second:02}+00:00", event, event))
    return story


def stages(
    *events: str, phase: CutoverPhase = "idle", now: Milestone | None = None
) -> dict[str, str]:
    """Return the stage of each step, by its name."""
    reached = PAIRED | told(*events).reached(standing(phase))
    return {each.id.value: each.stage.value for each in steps(reached, now)}


def done(found: dict[str, str]) -> list[str]:
    """Return the steps that are done."""
    return [name for name, stage in found.items() if stage == Stage.DONE.value]


def what_next(*events: str, phase: CutoverPhase = "idle") -> str:
    """Return what the page says comes next."""
    reached = PAIRED | told(*events).reached(standing(phase))
    return words.what_next(steps(reached, None), phase)


def test_whole_move() -> None:
    """Each step is done, and the copy has the time of its last live pass."""
    reached = told(*MOVE).reached(standing("committed"))
    plan = steps(reached, None)
    assert [each.stage for each in plan[2:]] == [Stage.DONE] * 7
    assert plan[2].at.endswith("02+00:00")
    assert what_next(*MOVE, phase="committed") == "The move is complete."


@pytest.mark.parametrize("end", ["undone", "record"])
@pytest.mark.parametrize("length", range(len(MOVE)))
def test_undo_leaves_what_was_copied(length: int, end: str) -> None:
    """After an undo at any point no step after the copy is done, and nothing is complete."""
    found = stages(*MOVE[: length + 1], end)
    assert set(done(found)) <= {"paired", "checked", "copied"}
    late = (*MOVE[: length + 1], end, "started", "migrated")
    assert set(done(stages(*late))) <= {"paired", "checked", "copied"}
    assert "complete" not in what_next(*late)


def test_undone_library_on_the_volume() -> None:
    """After the undo of a published move, the page warns of a second server."""
    story = told(*MOVE, "undone")
    assert story.was_undone_published
    assert "must not run there" in words.in_cluster(story, False)
    assert not told(*MOVE[:5], "undone").was_undone_published


def test_second_stop_begins_again() -> None:
    """A cutover that was refused and repeated shows only the steps of the second one."""
    found = stages("stop", "stopped", "unchanged", "stop", phase="stopping")
    assert set(done(found)) == {"paired"}


@pytest.mark.parametrize("length", [4, 5, 8, 9])
def test_another_pull_loses_nothing(length: int) -> None:
    """A puller that begins while another one is at work, or after the commit, changes no step."""
    assert stages(*MOVE[:length], "pull", phase="stopped") == stages(
        *MOVE[:length], phase="stopped"
    )


@pytest.mark.parametrize(
    ("phase", "last"),
    [("stopped", "stopped"), ("committing", "verified"), ("committed", "committed")],
)
def test_record_counts_without_a_log(phase: CutoverPhase, last: str) -> None:
    """If the log is lost, the steps that the record proves are done nevertheless."""
    assert done(stages(phase=phase))[-1] == last


def test_log_does_not_count_against_the_record() -> None:
    """If the last line of an undo is lost, an idle record has no committed move."""
    assert "committed" not in done(stages(*MOVE))


def test_rehearsal_is_no_move() -> None:
    """A rehearsal publishes a copy: the move still has to come."""
    events = ("pull", "pass", "rehearsed", "started", "migrated")
    assert done(stages(*events)) == ["paired", "copied"]
    assert "has the agent stop Plex" in what_next(*events)


def test_copy_without_a_stop() -> None:
    """With --no-cutover there is no stop: it is left out, and nothing is called complete."""
    found = stages("pull", "pass", "done", "started")
    assert found["stopped"] == found["committed"] == "left out"
    assert found["published"] == found["started"] == "done"
    assert "nothing keeps Plex on the VM stopped" in what_next("pull", "pass", "done", "started")


def test_only_one_step_is_next() -> None:
    """All steps after the next one are for later."""
    found = list(stages("pull", "pass").values())
    assert found.count("next") == 1
    assert found[found.index("next") + 1 :] == ["later"] * 5


@pytest.mark.parametrize("bad", ["failed", "refused", "attention"])
def test_trouble_lasts_until_something_goes_well(bad: str) -> None:
    """A failure is shown until the next pull, also after Plex was started again."""
    assert told("pull", bad).trouble is not None
    assert told("pull", bad, "undone").trouble is not None
    assert told("pull", bad, "pull").trouble is None
    assert told(bad, "paths").trouble is not None
    assert told("undo", "undone").trouble is None
    assert told().trouble is None


def test_downtime_ends() -> None:
    """It ends when Plex runs, or else with the publication, and is never negative."""
    now = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert told("pull").downtime(now) is None
    assert told(*MOVE[:5]).downtime(now) == (3597.0, False)
    assert told(*MOVE[:9]).downtime(now) == (5.0, True)
    assert told(*MOVE).downtime(now) == (6.0, True)
    assert told("stop", "stopped", "undone").downtime(now) == (2.0, True)
    assert told("stop").downtime(datetime(2025, 1, 1, tzinfo=UTC)) == (0.0, False)


def test_lines_that_are_no_events() -> None:
    """Damaged lines in the log's file hide no other line."""
    good = b'{"at":"2026-01-01T00:00:00+00:00","event":"pull","about":"a"}'
    bad = (
        b"",
        b"{",
        b"\xff",
        b"[" * 9999,
        good.replace(b"2026", b"x"),
        good.replace(b"-01T", b"-41T"),
    )
    assert [each.event for each in events_in(b"\n".join((*bad, good, *bad)))] == ["pull"]
