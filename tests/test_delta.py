"""Live passes and what the next pull brings: only what has changed, and all of that."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, read_log
from rig.volume import FRAME, RECEIPT_FILES, cut_at, left_of_pull, pull, run_puller

from bench.plexlibrary import LibraryShape, make_library
from initpuller.assemble import Assembly
from shared import protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_RACY = 2.1
"""Seconds after which a file is old enough for the agent to take its ctime for what it says."""
LARGE = 6
"""Frames of the large file."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Small files in folders, a large one, links of both kinds; all of it some seconds old."""
    library, content = tmp_path / "vm" / "Library", random.Random(5)  # noqa: S311 - reproducible
    for folder in range(6):
        below = library / f"folder{folder}" / "below"
        below.mkdir(parents=True)
        for number in range(30):
            (below / f"{number:02}").write_bytes(content.randbytes(40_000))
        (below / "link").symlink_to("00")
        (below / "hard").hardlink_to(below / "01")
    (library / "large").write_bytes(content.randbytes(LARGE * FRAME))
    (library / "empty").mkdir()
    time.sleep(_RACY)
    return library


@pytest.fixture
def ready(agent: Agent, target: Path) -> Agent:
    """The agent, after a pull until ready: nothing of what it asked is counted any more."""
    done = pull(target, agent, "--until", "ready")
    assert done.code == 0, done.text
    assert not (target / "Library").exists()
    assert json.loads(run_puller("status", "--target", target, "--json").out)["phase"] == "ready"
    agent.log.write_bytes(b"")
    return agent


def frames(agent: Agent) -> tuple[int, int]:
    """How many frames were sent, and how many were asked for that had not changed."""
    status = [
        line["status"]
        for line in read_log(agent.log)
        if line.get("event") == "request" and "/frames/" in line["path"]
    ]
    return status.count(200), status.count(304)


def finish(target: Path, agent: Agent, library: Path) -> None:
    """The pull that is left brings exactly the library, and leaves nothing but its receipt."""
    done = pull(target, agent, "--no-cutover")
    assert done.code == 0, done.text
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)
    assert left_of_pull(target) == RECEIPT_FILES


def test_nothing_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """No frame is sent at all."""
    finish(target, ready, library)
    assert frames(ready) == (0, 0)


def test_one_small_file_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """One frame with it is sent."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, 0)


def test_changed_without_a_new_mtime(ready: Agent, target: Path, library: Path) -> None:
    """Size and mtime are as they were: the ctime tells."""
    file = library / "folder2" / "below" / "11"
    info = file.stat()
    file.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    finish(target, ready, library)
    assert frames(ready) == (1, 0)


def test_one_block_of_a_large_file_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """The others are asked for by their digests, and not sent."""
    with (library / "large").open("r+b") as file:
        file.seek(5 * FRAME + 17)
        file.write(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, LARGE - 1)


def test_database_with_pages_changed_here_and_there(
    agent: Agent, target: Path, library: Path
) -> None:
    """What is sent is in the order of what has changed, though that is in every block."""
    database, content = library / "x.db", random.Random(9)  # noqa: S311 - reproducible
    database.write_bytes(content.randbytes(LARGE * FRAME))
    time.sleep(_RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    before = sent_bytes(agent)
    with database.open("r+b") as file:
        for page in content.sample(range(LARGE * FRAME // 4096), LARGE):
            file.seek(page * 4096)
            file.write(content.randbytes(4096))
    finish(target, agent, library)
    assert sent_bytes(agent) - before < LARGE * FRAME // 20


def sent_bytes(agent: Agent) -> int:
    """Bytes of bodies that the agent has sent, as it counts them for Prometheus."""
    found = re.search(
        r"^plexodus_agent_sent_bytes_total (\S+)$", agent.get("/metrics").decode(), re.MULTILINE
    )
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize(
    "size", [LARGE * FRAME + 1, (LARGE + 2) * FRAME, 3 * FRAME, 3 * FRAME - 1, FRAME, 100, 0]
)
def test_large_file_has_another_size(ready: Agent, target: Path, library: Path, size: int) -> None:
    """Longer, shorter by whole blocks, or no large file any more."""
    os.truncate(library / "large", size)
    finish(target, ready, library)


def test_everything_that_can_happen_to_a_tree(ready: Agent, target: Path, library: Path) -> None:
    """Removed, renamed, replaced by another kind, new; links moved; attributes changed."""
    below = [library / f"folder{number}" / "below" for number in range(6)]
    shutil.rmtree(below[0])
    below[1].rename(library / "renamed")
    (below[2] / "03").unlink()
    (below[2] / "03").mkdir()
    (below[2] / "03" / "inside").write_bytes(b"x")
    (below[2] / "04").unlink()
    (below[2] / "04").symlink_to("05")
    (below[3] / "link").unlink()
    (below[3] / "link").symlink_to("02")
    (below[3] / "hard").unlink()
    (below[3] / "hard").hardlink_to(below[3] / "08")
    (below[3] / "01").chmod(0o640)
    os.setxattr(below[3] / "02", "user.x", b"y")
    shutil.rmtree(below[4])
    below[4].write_bytes(b"a file now")
    (library / "new").mkdir()
    (library / "new" / "file").write_bytes(b"new")
    (library / "large").rename(library / "larger")
    os.utime(library / "empty", ns=(1, 1))
    finish(target, ready, library)


def test_database_that_keeps_its_times(agent: Agent, target: Path, library: Path) -> None:
    """Memory maps may change one at any time: its blocks are always asked for."""
    database = library / "folder0" / "x.db"
    shutil.copy(library / "large", database)
    time.sleep(_RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (0, LARGE)


def test_new_files_are_not_trusted(agent: Agent, target: Path, library: Path) -> None:
    """What is as young as the scan may have changed after it and kept its ctime."""
    (library / "folder0" / "young").write_bytes(b"young")
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (1, 0)


def test_agent_has_lost_the_base(ready: Agent, target: Path, library: Path) -> None:
    """The whole is scanned, and what is the same stays all the same."""
    shutil.rmtree(ready.state / "snapshots")
    ready.kill()
    ready.start()
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    finish(target, ready, library)
    assert frames(ready)[0] <= 3


def test_volume_has_lost_what_is_kept(ready: Agent, target: Path, library: Path) -> None:
    """Found when digests are compared; the whole is scanned, and the file is sent again."""
    staged = target / ".plexodus" / "staging" / "Library"
    (staged / "folder1" / "below" / "03").write_bytes(b"damaged on the volume")
    (staged / "folder2" / "below" / "04").unlink()
    finish(target, ready, library)


@pytest.mark.parametrize("place", ["staging.save_state", "staging.prune", "finish.make_symlink"])
def test_killed_while_the_delta_is_taken_over(
    ready: Agent, target: Path, library: Path, place: str
) -> None:
    """The next run goes on from whatever there is."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    with (library / "large").open("r+b") as file:
        file.write(b"new")
    with cut_at(f"initpuller.volume.{place}"):
        pull(target, ready)
    finish(target, ready, library)


@pytest.mark.parametrize("call", [1, 2])
def test_killed_between_two_blocks(ready: Agent, target: Path, library: Path, call: int) -> None:
    """Blocks of two times are in one file then; each is known by its own digest."""
    with (library / "large").open("r+b") as file:
        for block in (0, 2, 5):
            file.seek(block * FRAME)
            file.write(b"new")
    with cut_at("initpuller.volume.journal.Journal.done", call):
        pull(target, ready)
    with (library / "large").open("r+b") as file:
        file.seek(3 * FRAME)
        file.write(b"newer")
    finish(target, ready, library)


def test_second_live_pass_goes_on_from_the_first(ready: Agent, target: Path, library: Path) -> None:
    """A volume that was seeded days before gets only the difference; then the rest."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    assert pull(target, ready, "--until", "ready").code == 0
    assert frames(ready) == (1, 0)
    assert not (target / "Library").exists()
    (library / "folder4" / "below" / "07").write_bytes(b"newer")
    time.sleep(_RACY)
    finish(target, ready, library)


def test_files_change_and_go_while_they_are_read(agent: Agent, target: Path, library: Path) -> None:
    """A live pass takes no offence; what it got wrong is brought by the next pull."""
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            below = library / f"folder{number % 6}" / "below"
            (below / f"{number % 30:02}").write_bytes(os.urandom(number % 999))
            (below / f"new{number % 7}").write_bytes(b"x")
            (below / f"new{(number + 3) % 7}").unlink(missing_ok=True)
            os.truncate(library / "large", (LARGE - number % 3) * FRAME + number % 99)
            if stop.wait(0.001):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            done = pull(target, agent, "--until", "ready")
            assert done.code == 0, done.text
    finally:
        stop.set()
        writer.join()
    finish(target, agent, library)


def test_files_shrink_and_vanish_after_the_scan(agent: Agent, target: Path, library: Path) -> None:
    """Zeros keep the layout, and the next pull brings what is so."""
    vanishing, shrinking = library / "folder0" / "below" / "00", library / "large"
    real = Assembly.run_live

    async def first(assembly: Assembly) -> None:
        """The damage, then the pass."""
        vanishing.unlink()
        os.truncate(shrinking, FRAME // 2)
        await real(assembly)

    with patch.object(Assembly, "run_live", first):
        assert pull(target, agent, "--until", "ready").code == 0
    finish(target, agent, library)


def test_plex_library_until_ready(
    target: Path, tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """A library of Plex with its databases: only these are looked at again."""
    library = tmp_path / "vm" / "Library"
    library.parent.mkdir()
    make_library(library, LibraryShape(300, 8_000_000, 2_000_000))
    time.sleep(_RACY)
    agent = new_agent(library)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    sent, _ = frames(agent)
    assert sent == 1
    assert json.loads((target / ".plexodus" / "receipt.json").read_text())["plex"]


def test_only_a_whole_cold_snapshot_is_an_archive(ready: Agent, target: Path) -> None:
    """A live one is not consistent, and a delta not whole: neither is given out as one."""
    live = json.loads((target / ".plexodus" / "state.json").read_text())["snapshot"]["id"]
    body = json.dumps({"kind": "cold", "base": live}).encode()
    delta = json.loads(ready.ask("POST", protocol.SNAPSHOTS, body))
    assert delta["base"] == live
    for snapshot in (live, delta["id"]):
        assert ready.get(protocol.manifest_path(snapshot))
        with closing(ready.connect()) as http:
            headers = {"Authorization": f"Bearer {ready.token}"}
            http.request("GET", protocol.archive_path(snapshot, "tar"), headers=headers)
            assert http.getresponse().status == 404
