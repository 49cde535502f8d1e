"""The steps of a move, from the lines of its log."""

from __future__ import annotations

import pytest

from agent.host.migration_log import MigrationEvent
from agent.page.timeline import Milestone, Stage, timeline, trouble

MOVE = (
    *("pull", "pass", "pass", "stop", "stopped", "pass", "unchanged"),
    *("committed", "done", "started"),
)


def log(*events: str) -> list[MigrationEvent]:
    """Return a log with a line a second."""
    return [
        MigrationEvent(f"2026-01-01T00:00:{second:02}+00:00", event, event)
        for second, event in enumerate(events)
    ]


def stages(*events: str, now: Milestone | None = None) -> dict[str, str]:
    """Return the stage of each step, by its name."""
    known = {Milestone.PAIRED: "2026-01-01T00:00:00+00:00"}
    return {each.id.value: each.stage.value for each in timeline(known, log(*events), now)}


def done(found: dict[str, str]) -> list[str]:
    """Return the steps that are done."""
    return [name for name, stage in found.items() if stage == Stage.DONE.value]


def test_whole_move() -> None:
    """Each step is done, and the copy has the time of its last pass."""
    steps = timeline({}, log(*MOVE), None)
    assert [each.stage for each in steps[2:]] == [Stage.DONE] * 7
    assert steps[2].at.endswith("02+00:00")


@pytest.mark.parametrize("length", range(len(MOVE)))
def test_undo_leaves_what_was_copied(length: int) -> None:
    """After an undo at any point, no step after the copy is done."""
    found = stages(*MOVE[: length + 1], "undone")
    assert set(done(found)) <= {"paired", "checked", "copied"}


def test_second_stop_begins_again() -> None:
    """A cutover that was refused and repeated shows only the steps of the second one."""
    assert "committed" not in done(stages("stop", "stopped", "unchanged", "stop"))


def test_pull_after_the_commit_loses_nothing() -> None:
    """A puller that was killed after the commit only publishes."""
    found = stages(*MOVE[:8], "pull", now=Milestone.PUBLISHED)
    assert found["committed"] == "done"
    assert found["published"] == "now"


def test_copy_without_a_stop() -> None:
    """A rehearsal has no stop: it is left out, not still to come."""
    found = stages("pull", "pass", "done")
    assert found["stopped"] == found["committed"] == "left out"
    assert found["published"] == "done"
    assert found["started"] == "next"


def test_only_one_step_is_next() -> None:
    """All steps after the next one are for later."""
    found = list(stages("pull", "pass").values())
    assert found.count("next") == 1
    assert found[found.index("next") + 1 :] == ["later"] * 5


@pytest.mark.parametrize("bad", ["failed", "refused", "attention"])
def test_trouble_lasts_until_something_goes_well(bad: str) -> None:
    """A failure is shown until the next pull, or until the move is complete."""
    assert trouble(log("pull", bad)) is not None
    assert trouble(log("pull", bad, "pull")) is None
    assert trouble(log(bad, "paths")) is not None
    assert trouble(log()) is None
