"""Stories: a mode, a network, and faults with their moments, all drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.faults import Fault

MEBI = 1024 * 1024


class Mode(Enum):
    """The way of a move, named by its options."""

    MOVE = "move"
    STOPPED = "--no-cutover"
    REHEARSED = "--rehearse, move"
    PRESEEDED = "--until ready, move"
    SET_ASIDE = "set-aside"
    RESUMED = "resumed later"


class When(Enum):
    """The event that a moment is counted from, since the start of a run or the last fault."""

    REQUESTS = "requests in the agent's log"
    JOURNAL = "lines in the journal"
    START = "start of the run"
    STOPPED = "stop of Plex"
    FENCED = "fence on the VM"
    PUBLISHED = "publication"


@dataclass(frozen=True)
class Moment:
    """So many milliseconds after the ``count``-th event."""

    when: When
    count: int
    milliseconds: int

    def __str__(self) -> str:
        counted = self.when in (When.REQUESTS, When.JOURNAL)
        what = f"{self.count} {self.when.value}" if counted else self.when.value
        return f"{self.milliseconds} ms after {what}"


@dataclass(frozen=True)
class Act:
    """One fault of a story."""

    fault: str
    moment: Moment
    seed: int
    """All decisions of the fault are drawn from this."""

    def __str__(self) -> str:
        return f"{self.fault}, {self.moment}"


@dataclass(frozen=True)
class Break:
    """The time between the first transfer and its resumption, if the mode has one."""

    days: int
    """Days by which both wall clocks are set ahead."""
    loses_snapshots: bool
    lines: int = 1
    """Number of frames in the journal when the first transfer is killed."""


@dataclass(frozen=True)
class Story:
    """A whole move, with its faults in order."""

    seed: int
    mode: Mode
    rate: float | None
    """Bytes per second from the agent; None for no limit."""
    jobs: int
    has_unit: bool
    """Whether an agent that is killed has an ``ExecStopPost``, as in its unit."""
    filesystem: str
    """The kind of filesystem on a disk whose power is cut.

    It is not Btrfs, whose remains cannot be mounted while a file is open on what was cut off.
    """
    pause: Break
    acts: tuple[Act, ...]
    kept: tuple[int, ...]
    """Which of the seed's acts these are."""

    def __str__(self) -> str:
        rate = f"{self.rate / MEBI:.0f} MiB/s" if self.rate else "no limit of the network"
        unit = "a unit" if self.has_unit else "no unit"
        head = f"{self.mode.value}, {self.jobs} jobs, {rate}, agent with {unit}"
        return "; ".join([head, *map(str, self.acts)])

    @property
    def name(self) -> str:
        """Return the form that ``--replay`` accepts."""
        return f"{self.seed}:{','.join(map(str, self.kept))}"

    @property
    def calm(self) -> Story:
        """Return the story without its faults, with which its cost is compared."""
        return self.only(())

    def only(self, kept: Sequence[int]) -> Story:
        """Return the story with these of the seed's acts, which it must have."""
        acts = dict(zip(self.kept, self.acts, strict=True))
        return replace(self, acts=tuple(acts[each] for each in kept), kept=tuple(kept))


def draw_story(seed: int, faults: Sequence[Fault]) -> Story:
    """Return the story of ``seed``; the same one each time, for the same faults."""
    chance = random.Random(seed)
    mode = chance.choice(list(Mode))
    rate = chance.choice([None, None, 16 * MEBI, 6 * MEBI])
    jobs, has_unit = chance.randint(1, 3), chance.random() < 0.5
    count = chance.choices([1, 2, 3, 4], weights=[3, 4, 3, 2])[0]
    acts = tuple(_draw_act(chance, chance.choice(faults), mode) for _ in range(count))
    filesystem = chance.choice(["ext4", "xfs"])
    days, loses_snapshots = chance.choice([0, chance.randint(1, 30)]), chance.random() < 0.5
    pause = Break(days, loses_snapshots, chance.randint(1, 11))
    return Story(seed, mode, rate, jobs, has_unit, filesystem, pause, acts, tuple(range(count)))


def parse_name(name: str, faults: Sequence[Fault]) -> Story:
    """Return the story that :attr:`Story.name`, or a seed alone, stands for."""
    seed, colon, kept = name.partition(":")
    story = draw_story(int(seed), faults)
    return story.only([int(each) for each in kept.split(",") if each]) if colon else story


def _draw_act(chance: random.Random, fault: Fault, mode: Mode) -> Act:
    has_cutover = mode is not Mode.STOPPED
    requests = chance.randint(1, 24 if has_cutover else 14)
    moments = [
        (5, Moment(When.REQUESTS, requests, chance.randint(0, 40))),
        (2, Moment(When.JOURNAL, chance.randint(1, 6), chance.randint(0, 40))),
        (2, Moment(When.START, 0, chance.randint(0, 1200))),
    ]
    if has_cutover:
        moments.append((5, Moment(When.STOPPED, 0, chance.randint(0, 300))))
        moments.append((2, Moment(When.FENCED, 0, chance.randint(0, 40))))
    if fault.after_move:
        moments.append((2, Moment(When.PUBLISHED, 0, chance.randint(0, 300))))
    if has_cutover:
        moments = [each for each in moments if each[1].when in fault.when] or moments
    weights, which = zip(*moments, strict=True)
    moment = chance.choices(which, weights=weights)[0]
    return Act(fault.name, moment, chance.getrandbits(32))
