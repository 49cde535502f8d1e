"""Each frame is fetched once, and a lane announces the frame that it fetches next."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initpuller.agent_client.retry import Retrier
from initpuller.agent_client.schedule import fetch_frames
from shared.errors import AgentUnreachable

if TYPE_CHECKING:
    from initpuller.agent_client.schedule import Bring


class Lanes:
    """Lanes that note what each is asked for, and take some turns of the event loop for it.

    Args:
        turns: of the event loop, for each frame of each lane in turn.
        failing: frames whose first attempt fails.
    """

    def __init__(self, turns: list[int], failing: set[int]) -> None:
        self._turns = turns
        self._failing = failing
        self.asked: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
        self.received: list[int] = []

    def lane(self, name: int) -> Bring[int]:
        """Return one of the lanes."""

        async def bring(number: int, following: int | None) -> int:
            for _ in range(self._turns[number % len(self._turns)]):
                await asyncio.sleep(0)
            self.asked[name].append((number, following))
            if number in self._failing:
                self._failing.discard(number)
                raise AgentUnreachable("away")
            return number

        return bring

    async def receive(self, number: int, brought: int) -> None:
        """Take a frame."""
        assert number == brought
        self.received.append(number)


@given(
    parts=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    turns=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    failing=st.sets(st.integers(0, 17)),
)
def test_each_frame_arrives_once(parts: list[int], turns: list[int], failing: set[int]) -> None:
    """No frame is left out or fetched twice, and each is announced, however slow a lane is."""
    lanes = Lanes(turns, failing)
    ends = [sum(parts[:count]) for count in range(len(parts) + 1)]
    held = [iter(range(*each)) for each in pairwise(ends)]
    bring = [lanes.lane(name) for name in range(len(parts))]
    asyncio.run(fetch_frames(Retrier((0.0,)), bring, held, lanes.receive))

    assert sorted(lanes.received) == list(range(sum(parts)))
    for name, asked in lanes.asked.items():
        announced = dict(asked)
        frames = list(announced)  # a frame that was tried again counts once
        assert list(announced.values()) == [*frames[1:], None]
        own = [number for number in frames if ends[name] <= number < ends[name + 1]]
        assert frames[: len(own)] == own == sorted(own)


@pytest.mark.parametrize("slow", [0, 1])
def test_lane_that_is_done_helps_the_other(slow: int) -> None:
    """Half of a library that takes longer is no longer than its other half in the end."""
    lanes = Lanes([1], set())
    held = [iter(range(1 if slow else 20)), iter(range(20, 40 if slow else 21))]
    bring = [lanes.lane(0), lanes.lane(1)]
    asyncio.run(fetch_frames(Retrier((0.0,)), bring, held, lanes.receive))

    assert len(lanes.received) == 21
    assert min(map(len, lanes.asked.values())) >= 9
