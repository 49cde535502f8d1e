"""Checks of a volume after a run, and an agent that is down meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from initpuller.agent_client.retry import Retrier
from rig.oracle import rsync_differences, sums_hold
from rig.volume import RECEIPT_FILES, Ended, fingerprint, left_of_pull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Agent


@contextmanager
def away(agent: Agent, *, is_away: bool) -> Iterator[None]:
    """The agent is down meanwhile, and is not waited for."""
    if not is_away:
        yield
        return
    agent.kill()
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Retrier.__init__, "__defaults__", ((0.0,),))
            yield
    finally:
        agent.start()


def is_published(target: Path, agent: Agent, done: Ended, *, is_rehearsal: bool = False) -> None:
    """Fail unless the whole library is there, and beside it only what its receipt needs."""
    assert rsync_differences(agent.library, target / "Library") == [], done.text
    assert sums_hold(target)
    left = left_of_pull(target) - RECEIPT_FILES
    assert bool(left) is is_rehearsal
    assert all(name.startswith(("journal-", "digests-", "state.json")) for name in left)


def is_untouched(target: Path, before: dict[str, tuple[int, int, int, bytes]]) -> None:
    """Assert that the volume is as it was, except the lock and the time of its folder."""
    after = fingerprint(target)
    for found in (before, after):
        for name in (".", ".plexodus", ".plexodus/lock"):
            found.pop(name, None)
    assert after == before
