"""Large files that changed between two passes: little more than the written blocks is sent."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from rig.cutover.deltas import LARGE, RACY, finish, frames, sent_bytes
from rig.volume import FRAME, cut_at, pull

from shared.wire.protocol import SNAPSHOTS

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def library(steady_library: Path) -> Path:
    """Return small files in folders, a large file and links of both kinds, all some seconds old."""
    return steady_library


def test_one_block_of_a_large_file_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """Only the changed block is sent.

    The others are requested by digest and answered without content.
    """
    with (library / "large").open("r+b") as file:
        file.seek(5 * FRAME + 17)
        file.write(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, LARGE - 1)


def test_database_with_pages_changed_here_and_there(
    agent: Agent, target: Path, library: Path
) -> None:
    """If every block has some changed pages, only the pieces with these pages are sent."""
    database, content = library / "x.db", random.Random(9)  # noqa: S311 - reproducible
    database.write_bytes(content.randbytes(LARGE * FRAME))
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    before = sent_bytes(agent)
    with database.open("r+b") as file:
        for page in content.sample(range(LARGE * FRAME // 4096), LARGE):
            file.seek(page * 4096)
            file.write(content.randbytes(4096))
    finish(target, agent, library)
    assert sent_bytes(agent) - before < LARGE * FRAME // 20


@pytest.mark.parametrize("digests_first", [True, False])
def test_blocks_are_told_apart_however_they_were_hashed(
    agent: Agent, library: Path, *, digests_first: bool
) -> None:
    """An unchanged block gets 304, whether or not the file's digest was requested before."""
    base = _snapshot(agent, kind="live")
    tags = ", ".join(_frame(agent, base, number)[1] for number in range(base["frames"]))
    with (library / "large").open("r+b") as file:
        file.seek(3 * FRAME)
        file.write(b"new")
    delta = _snapshot(agent, kind="cold", base=base["id"])
    assert delta["frames"] == LARGE
    if digests_first:
        agent.get(f"{SNAPSHOTS}/{delta['id']}/SHA256SUMS")

    answers = [_frame(agent, delta, number, tags) for number in range(LARGE)]

    assert [status for status, _ in answers] == [304, 304, 304, 200, 304, 304]
    assert all(tag in tags for status, tag in answers if status == 304)
    assert answers[3][1] not in tags
    assert _frame(agent, delta, LARGE, tags)[0] == 404


def _snapshot(agent: Agent, **request: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(agent.ask("POST", SNAPSHOTS, json.dumps(request).encode()))
    return answer


def _frame(agent: Agent, snapshot: dict[str, Any], number: int, known: str = "") -> tuple[int, str]:
    """Return status and entity-tag of the response to a client that has frames with these tags."""
    right = {"Authorization": f"Bearer {agent.token}", "If-None-Match": known}
    with closing(agent.connect()) as http:
        path = f"{SNAPSHOTS}/{snapshot['id']}/frames/{number}.tar.zst"
        http.request("GET", path, headers=right)
        response = http.getresponse()
        response.read()
        return response.status, response.headers.get("ETag", "")


@pytest.mark.parametrize("size", [(LARGE + 1) * FRAME + 1, 3 * FRAME, FRAME, 0])
def test_large_file_has_another_size(ready: Agent, target: Path, library: Path, size: int) -> None:
    """A large file that grew, lost whole blocks or became small arrives with its new content."""
    os.truncate(library / "large", size)
    finish(target, ready, library)


def test_database_that_keeps_its_times(agent: Agent, target: Path, library: Path) -> None:
    """A database may change through a memory map without new times, so every block is compared."""
    database = library / "folder0" / "x.db"
    shutil.copy(library / "large", database)
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (0, LARGE)


@pytest.mark.parametrize("call", [1, 2])
def test_killed_between_two_blocks(ready: Agent, target: Path, library: Path, call: int) -> None:
    """After a kill between two blocks, the file arrives even if another block changed since."""
    with (library / "large").open("r+b") as file:
        for block in (0, 2, 5):
            file.seek(block * FRAME)
            file.write(b"new")
    with cut_at("initpuller.volume.records.journal.Journal.done", call):
        pull(target, ready)
    with (library / "large").open("r+b") as file:
        file.seek(3 * FRAME)
        file.write(b"newer")
    finish(target, ready, library)
