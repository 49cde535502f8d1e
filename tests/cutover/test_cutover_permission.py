"""The answer that permits a publication: about this very cutover, and a moment old."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from initpuller.agent_client.retry import Retrier
from initpuller.pull import permission
from initpuller.pull.cutover import Cutover
from shared.timestamps import boottime
from shared.wire.protocol import CutoverStanding

if TYPE_CHECKING:
    from initpuller.agent_client.cutover import CutoverClient
    from initpuller.volume.records.pull_record import PullRecord

OURS, THEIRS = "a" * 32, "b" * 32


def record(cutover: str = OURS, snapshot: str = "c" * 64) -> PullRecord:
    """Return a record with this cutover and snapshot."""
    state = SimpleNamespace(cutover=cutover, snapshot=SimpleNamespace(id=snapshot))
    return cast("PullRecord", SimpleNamespace(state=state, current=state))


def agent(cutover: str) -> CutoverClient:
    """Return an agent that has committed this cutover."""

    async def standing() -> CutoverStanding:
        """Say so."""
        return CutoverStanding("committed", cutover, "pod", "", 0.0, "", "")

    return cast("CutoverClient", SimpleNamespace(standing=standing))


async def test_agent_has_committed_another_cutover() -> None:
    """However often it is asked, and however soon, that permits nothing."""
    cutover = Cutover(record(), agent(THEIRS), Retrier(()))
    for _ in range(3):
        assert not await cutover.is_committed()


async def test_answer_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """It permits a publication for two seconds, and for no other snapshot."""
    planned = record()
    cutover = Cutover(planned, agent(OURS), Retrier(()))
    assert await cutover.is_committed()
    cutover.permission.require()
    planned.current.snapshot.id = "d" * 64
    with pytest.raises(permission.OutOfDate):
        cutover.permission.require()
    planned.current.snapshot.id = "c" * 64
    cutover.permission.require()
    now = boottime() + permission.FRESH_SECONDS
    monkeypatch.setattr(permission, "boottime", lambda: now)
    with pytest.raises(permission.OutOfDate):
        cutover.permission.require()
    cutover.permission.give()  # a rehearsal's does not age
    cutover.permission.require()
