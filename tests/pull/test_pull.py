"""A library arrives identical, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rig.oracle import rsync_differences, sums_hold

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent, Puller


def test_library_arrives_identical(library: Path, puller: Puller) -> None:
    """After a pull, rsync and sha256sum find no difference between both sides."""
    done = puller.pull()

    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []
    assert sums_hold(puller.target)


def test_second_run_sends_no_request(agent: Agent, puller: Puller) -> None:
    """With a receipt beside the library, a run exits 0 without a single request."""
    assert puller.pull().code == 0
    before = agent.requests()

    assert puller.pull().code == 0
    assert agent.requests() == before


def test_second_run_needs_no_agent(agent: Agent, puller: Puller) -> None:
    """With a receipt, a run exits 0 although the agent is gone."""
    assert puller.pull().code == 0
    agent.stop()

    assert puller.pull().code == 0


def test_nothing_but_receipt_is_left(puller: Puller) -> None:
    """Journal, staging and state are removed once the receipt is written."""
    assert puller.pull().code == 0

    left = {path.name for path in (puller.target / ".plexodus").iterdir()}
    assert left == {"lock", "receipt.json", "manifest.jsonl.zst", "omitted.jsonl.zst", "SHA256SUMS"}
