"""The index of an archive outlives the agent: killed while it encodes, it resumes there."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from rig.archive.archives import fill
from rig.archive.client import BROKEN, ArchiveClient
from rig.archive.in_process import InProcess
from rig.waiting import wait_until

from shared.wire.protocol import archive_path

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

RECORD = 64


def known(state: Path) -> set[int]:
    """Return the frames with a known length in the index of a state folder, as documented."""
    (index,) = state.glob("snapshots/*/index.tar.gz")
    content = index.read_bytes()
    frames = len(content) // RECORD - 2
    lengths = [content[RECORD * (1 + n) : RECORD * (1 + n) + 8] for n in range(frames)]
    return {number for number, length in enumerate(lengths) if any(length)}


def _knows(state: Path, count: int) -> bool:
    return len(known(state)) >= count


def test_killed_in_the_middle_of_a_cold_head(agent: Agent, library: Path) -> None:
    """After each kill, known lengths stay known, and the tag stays the same."""
    client = ArchiveClient(agent.port, agent.state, agent.token)
    path = archive_path(client.snapshot(), "tar.gz")
    tags = {client.ask(path, [("If-Match", '"none"')], method="HEAD").headers["ETag"]}
    before: set[int] = set()
    kills = 0
    while len(before) < 12:
        goal = min(12, len(before) + 5)

        def head() -> None:
            with suppress(*BROKEN):
                client.ask(path, method="HEAD")

        asking = threading.Thread(target=head)
        asking.start()
        wait_until(partial(_knows, agent.state, goal), every=0.001)
        agent.kill()
        kills += 1
        asking.join()
        assert known(agent.state) >= before
        before = known(agent.state)
        agent.start()
        tags.add(client.ask(path, [("If-Match", '"none"')], method="HEAD").headers["ETag"])
    size = int(client.ask(path, method="HEAD").headers["Content-Length"])
    whole = client.ask(path)
    assert len(whole.body) == size
    assert tags == {whole.headers["ETag"]}
    assert kills > 1


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_is_known_is_not_encoded_again(tmp_path: Path, method: str) -> None:
    """After restarts, only frames of unknown length are encoded."""
    fill(tmp_path / "Library")
    headers = [("Range", "bytes=-1")] if method == "GET" else []
    with InProcess(tmp_path / "state", tmp_path / "Library") as agent:
        path = archive_path(agent.client.snapshot(), "tar.gz")
        agent.client.ask(path, [("If-Match", '"none"')])  # makes the index
        rounds = 0
        while len(found := known(agent.state)) < 6:
            agent.made.clear()
            with agent.client.asked(path, headers, method=method):
                wait_until(partial(_knows, agent.state, len(found) + 1), every=0.001)
            agent.restart()
            made = [number for _, number in agent.made]
            assert not found & set(made)
            assert len(made) == len(set(made))
            rounds += 1
        agent.made.clear()
        answer = agent.client.ask(path, headers, method=method)
        assert answer.status in (200, 206)
        assert [number for _, number in agent.made] in ([], [5])
    assert rounds >= 1


def test_other_snapshots_asked_for_meanwhile(tmp_path: Path) -> None:
    """A request completes though its snapshot is no longer a recent one.

    More snapshots than are held in memory are asked for while frames of the first are encoded:
    it still learns its length, from its own frames and from those that others have made.
    """
    library = tmp_path / "Library"
    fill(library)
    with InProcess(tmp_path / "state", library) as agent:
        others = []
        for number in range(3):
            (library / "new").write_bytes(bytes(number))
            others.append(archive_path(agent.client.snapshot(), "tar"))
        path = archive_path(agent.client.snapshot(), "tar.gz")
        held, go_on = threading.Event(), threading.Event()

        def wait_at_the_third(_archive: object, number: int) -> None:
            if number == 2:
                held.set()
                go_on.wait(60)

        agent.before_make = wait_at_the_third
        answers: list[str | None] = []

        def head() -> None:
            answers.append(agent.client.ask(path, method="HEAD").headers["Content-Length"])

        asking = [threading.Thread(target=head)]
        asking[0].start()
        assert held.wait(60)
        for other in others[:2]:
            assert agent.client.ask(other, [("If-None-Match", "*")]).status == 304
        asking.append(threading.Thread(target=head))
        asking[1].start()
        time.sleep(0.5)
        go_on.set()
        for each in asking:
            each.join()
        assert set(answers) == {str(len(agent.client.ask(path).body))}
