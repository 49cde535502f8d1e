"""Stories of the campaign: what a seed draws, and whole moves with one fault or none."""

from __future__ import annotations

import shutil
from itertools import count
from typing import TYPE_CHECKING

import pytest
from campaign.faults.registry import FAULTS
from campaign.namespaces import PlexTurn, Worker, prepare
from campaign.story import Mode, When, draw_story, parse_name
from rig.mounts import NEEDS_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from campaign.machine import Outcome
    from campaign.story import Act

_SOON = 20
"""Milliseconds after an event."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Start a worker of the campaign."""
    folder = tmp_path_factory.mktemp("campaign")
    prepare(folder)
    with Worker(folder, 0, PlexTurn()) as worker:
        yield worker


def run(worker: Worker, name: str) -> Outcome:
    """Run a story, which has to end as promised."""
    outcome = worker.run(name)
    assert outcome.failure == ""
    assert outcome.violations == [], "\n".join(outcome.timeline)
    assert outcome.codes[-1] == 0
    return outcome


def story_of(fault: str, when: When) -> str:
    """Return the name of a move with this fault alone, soon after this event.

    No seed means the same story for ever: another fault in the registry changes what it draws.
    """

    def is_wanted(act: Act) -> bool:
        """Whether it is this fault, and soon."""
        moment = act.moment
        return act.fault == fault and moment.when is when and moment.milliseconds < _SOON

    for seed in count():
        story = draw_story(seed, FAULTS)
        for number, act in zip(story.kept, story.acts, strict=True):
            if story.mode is Mode.MOVE and is_wanted(act):
                return f"{seed}:{number}"
    raise AssertionError


def story_without_faults(mode: Mode) -> str:
    """Return the name of a story of this mode without faults."""
    stories = (draw_story(seed, FAULTS) for seed in count())
    return next(each.calm.name for each in stories if each.mode is mode)


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("fault", "when"),
    [
        ("agent ended", When.STOPPED),
        ("power lost on the VM", When.FENCED),
        pytest.param("power lost on the node", When.STOPPED, marks=pytest.mark.long),
        pytest.param("puller killed", When.JOURNAL, marks=pytest.mark.long),
    ],
)
def test_move_with_one_fault(worker: Worker, fault: str, when: When) -> None:
    """A move ends as promised whose agent is ended, puller killed, or power lost on either side."""
    assert run(worker, story_of(fault, when)).happened == [fault]


@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim is in C")
def test_volume_accepts_half_of_each_write(worker: Worker) -> None:
    """The first pull succeeds. It ended with 13, because half of the digests were lost."""
    outcome = run(worker, "954:1")
    assert outcome.happened == ["short writes"]
    assert outcome.codes == [0]


@NEEDS_ROOT
@pytest.mark.parametrize(
    "mode", [Mode.MOVE, *(pytest.param(mode, marks=pytest.mark.long) for mode in list(Mode)[1:])]
)
def test_move_without_faults(worker: Worker, mode: Mode) -> None:
    """No judge objects. Of a database that has changed, only the changed pieces are sent."""
    outcome = run(worker, story_without_faults(mode))
    assert {*outcome.codes} <= {0, -9}
    assert (outcome.changed_blocks > 0) == (mode is not Mode.STOPPED)


def test_seed_draws_the_same_story_each_time() -> None:
    """A replay has the faults and moments of the first run, or the subset that its name says."""
    stories = [draw_story(seed, FAULTS) for seed in range(200)]
    assert stories == [draw_story(seed, FAULTS) for seed in range(200)]
    assert {act.fault for story in stories for act in story.acts} == {each.name for each in FAULTS}
    long = next(story for story in stories if len(story.acts) > 2)
    assert parse_name(long.name, FAULTS) == long
    assert parse_name(f"{long.seed}:1", FAULTS).acts == long.acts[1:2]


@pytest.mark.parametrize(
    ("fault", "mode", "expected"),
    [
        # A person can start Plex from the start of that pull on: no agent has stopped it.
        ("Plex started by a person", Mode.STOPPED, set(When) - {When.STOPPED, When.FENCED}),
        ("undo by a person", Mode.MOVE, set(When)),
    ],
)
def test_person_at_each_moment(fault: str, mode: Mode, expected: set[When]) -> None:
    """No event is left out that Plex can be started after, or the move undone."""
    stories = (draw_story(seed, FAULTS) for seed in range(4000))
    acts = [act for story in stories if story.mode is mode for act in story.acts]
    assert {act.moment.when for act in acts if act.fault == fault} == expected
