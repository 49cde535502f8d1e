"""A stop works, and a query after it is not answered: that does not count as a stop that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.world import World

from shared.errors import CutoverRefused
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST = CutoverRequest("a" * 32, "pod", circumstances={"options": "the same"})
QUERIES = ["left", "run"]
NO_ANSWER = CutoverRefused("systemd does not answer")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a VM with a Plex that runs."""
    world = World(tmp_path, tmp_path / "elsewhere", lambda _: None)
    with world.patched():
        yield world


@pytest.mark.parametrize("query", QUERIES)
def test_query_after_a_stop_is_not_answered_once(world: World, query: str) -> None:
    """It is repeated, also after one that has taken longer than a Plex may take to close files."""
    real, calls = getattr(world.plex, query), 0

    def ask() -> object:
        """Fail once, after the time limit of a query."""
        nonlocal calls
        calls += 1
        if calls == 1:
            world.clock += 8
            raise NO_ANSWER
        return real()

    with patch.object(world.plex, query, ask):
        assert world.control.begin(REQUEST).phase == "stopped"
    assert calls == 2


@pytest.mark.parametrize("query", QUERIES)
def test_query_after_a_stop_is_not_answered(world: World, query: str) -> None:
    """The cutover is refused, Plex runs, and the next pull may stop it."""
    with (
        patch.object(world.plex, query, side_effect=NO_ANSWER),
        pytest.raises(CutoverRefused, match="does not answer"),
    ):
        world.control.begin(REQUEST)
    world.wait(5.0)
    standing = world.control.standing()
    assert (standing.phase, standing.failure) == ("idle", None)
    assert world.plex.running
    again = CutoverRequest("b" * 32, "pod", circumstances=REQUEST.circumstances)
    assert world.control.begin(again).phase == "stopped"
