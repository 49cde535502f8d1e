"""Live passes and later pulls: they transfer everything that changed, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.deltas import LARGE, RACY, finish, frames
from rig.oracle import omitted
from rig.volume import FRAME, cut_at, pull, run_puller

from bench.plexlibrary import LibraryShape, make_library
from initpuller.pull.transfer import Assembly
from shared.tree.manifest import Entry, Kind
from shared.tree.racy import Steadiness
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def library(steady_library: Path) -> Path:
    """Return small files in folders, a large file and links of both kinds, all some seconds old."""
    return steady_library


def test_nothing_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """If nothing changed, the volume is reported as ready and no frame is sent."""
    assert json.loads(run_puller("status", "--target", target, "--json").out)["phase"] == "ready"
    finish(target, ready, library)
    assert frames(ready) == (0, 0)


def test_one_small_file_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """If one small file changed, only its frame is sent."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, 0)


def test_changed_without_a_new_mtime(ready: Agent, target: Path, library: Path) -> None:
    """A file changed with the same size and mtime is found by its ctime."""
    file = library / "folder2" / "below" / "11"
    info = file.stat()
    file.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    finish(target, ready, library)
    assert frames(ready) == (1, 0)


def test_everything_that_can_happen_to_a_tree(ready: Agent, target: Path, library: Path) -> None:
    """Removed, renamed, new and retyped entries, moved links and changed attributes all arrive."""
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


def test_new_files_are_not_trusted(agent: Agent, target: Path, library: Path) -> None:
    """A file as young as the scan is sent again: a later change may leave the same ctime."""
    (library / "folder0" / "young").write_bytes(b"young")
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (1, 0)


def test_large_file_has_changed_as_long_ago_as_one_write_takes(
    agent: Agent, target: Path, library: Path
) -> None:
    """The blocks of a young large file are requested, and its other name stays.

    A write that set the ctime at its start may have ended after the scan.
    """
    (library / "folder0" / "below" / "07").write_bytes(b"new")
    (library / "named-later").hardlink_to(library / "large")
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (0, LARGE)


@pytest.mark.parametrize(
    ("size", "age", "is_trusted"),
    [
        (0, 2.1, True),
        (40_000, 2.1, True),
        (40_000, 1.9, False),
        (24 * 2**20, 7.9, False),
        (24 * 2**20, 8.1, True),
        (2**40, 514.1, True),
        (2**40, 513.9, False),
    ],
)
def test_age_from_which_a_file_is_trusted(size: int, age: float, *, is_trusted: bool) -> None:
    """A file is trusted after two seconds plus the longest write, and a hard link like its file."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    changed = int((began.timestamp() - age) * 1000) * 10**6
    file = Entry(b"L/a", Kind.FILE, 0o600, 0, 0, 0, changed, 1, size=size)
    link = Entry(b"L/b", Kind.HARDLINK, 0o600, 0, 0, 0, changed, 1, link=b"L/a")
    steadiness = Steadiness("live", began.isoformat())
    assert [steadiness.holds(each) for each in (file, link)] == [is_trusted, is_trusted]


def test_omitted_entries_of_unchanged_folders_are_listed_again(
    agent: Agent, target: Path, library: Path
) -> None:
    """A delta lists what was left out as a whole copy does, also beside unchanged files."""
    os.mkfifo(library / "folder1" / "below" / "pipe")
    os.setxattr(library / "folder2" / "below" / "07", "user.two\nlines", b"")
    (library / "folder4" / "below" / "plex.pid").write_bytes(b"1234")
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    done = pull(target, agent)
    assert done.code == 0, done.text
    assert frames(agent) == (0, 0)
    assert omitted(target) == {
        "Library/folder1/below/pipe": "fifo",
        "Library/folder2/below/07": "xattr",
        "Library/folder4/below/plex.pid": 4,
    }


def test_left_out_entries_change_between_two_scans_of_the_same_library(
    agent: Agent, target: Path, library: Path
) -> None:
    """The list of left-out entries is the newest, also if the snapshot is the same."""
    options = "--exclude", "folder4/below/*.tmp"
    excluded = library / "folder4" / "below" / "a.tmp"
    excluded.write_bytes(b"1")
    time.sleep(RACY)
    with cut_at("initpuller.volume.staging.staging.Staging.commit", 2):
        pull(target, agent, *options)
    excluded.write_bytes(b"12345")
    assert pull(target, agent, *options).code == 0
    assert omitted(target) == {"Library/folder4/below/a.tmp": 5}


def test_agent_has_lost_the_base(ready: Agent, target: Path, library: Path) -> None:
    """If the agent lost the base, it scans the whole library, and unchanged entries stay."""
    shutil.rmtree(ready.state / "snapshots")
    ready.kill()
    ready.start()
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    finish(target, ready, library)
    assert frames(ready)[0] <= 3


def test_volume_has_lost_what_is_kept(ready: Agent, target: Path, library: Path) -> None:
    """A kept file that the volume lost is found by its digest and sent again."""
    staged = target / ".plexodus" / "staging" / "Library"
    (staged / "folder1" / "below" / "03").write_bytes(b"damaged on the volume")
    (staged / "folder2" / "below" / "04").unlink()
    finish(target, ready, library)


@pytest.mark.parametrize(
    "place",
    [
        "records.transitions.next_snapshot",
        "records.transitions.prune_done",
        "staging.staging.prune",
        "staging.finishing.make_symlink",
    ],
)
def test_killed_while_the_delta_is_taken_over(
    ready: Agent, target: Path, library: Path, place: str
) -> None:
    """After a kill while a delta is applied, the next run completes the library."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    with (library / "large").open("r+b") as file:
        file.write(b"new")
    with cut_at(f"initpuller.volume.{place}"):
        pull(target, ready)
    finish(target, ready, library)


def test_second_live_pass_goes_on_from_the_first(ready: Agent, target: Path, library: Path) -> None:
    """A volume that was filled days before gets only the difference."""
    (library / "folder3" / "below" / "07").write_bytes(b"new")
    assert pull(target, ready, "--until", "ready").code == 0
    assert frames(ready) == (1, 0)
    assert not (target / "Library").exists()
    (library / "folder4" / "below" / "07").write_bytes(b"newer")
    time.sleep(RACY)
    finish(target, ready, library)


def test_files_change_and_go_while_they_are_read(agent: Agent, target: Path, library: Path) -> None:
    """A live pass tolerates files that change or vanish, and the next pull corrects them."""
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


def test_passes_go_on_until_they_get_no_shorter(agent: Agent, target: Path, library: Path) -> None:
    """Live passes repeat until one transfers no less than the one before."""
    changing = iter((4, 2, 2, 2, 2))
    real = Assembly.run_live

    async def run_live(assembly: Assembly) -> bool:
        """Write as Plex does, then run the pass."""
        for number in range(next(changing)):
            (library / f"folder{number}" / "below" / "00").write_bytes(os.urandom(3_000_000))
        await asyncio.sleep(RACY + 2)  # as passes take; a large file is trusted later than others
        return await real(assembly)

    with patch.object(Assembly, "run_live", run_live):
        done = pull(target, agent, "--until", "ready", "--downtime", "0")
    assert done.code == 0, done.text
    moved = [line["moved"] for line in done.log if line["event"] == "live pass"]
    assert moved[1:] == ["11.4 MiB", "5.7 MiB", "5.7 MiB"], moved


def test_files_shrink_and_vanish_after_the_scan(agent: Agent, target: Path, library: Path) -> None:
    """Zeros replace the missing bytes in a live pass, and the next pull sends the real content."""
    vanishing, shrinking = library / "folder0" / "below" / "00", library / "large"
    real = Assembly.run_live

    async def first(assembly: Assembly) -> bool:
        """Do the damage, then run the pass."""
        vanishing.unlink()
        os.truncate(shrinking, FRAME // 2)
        return await real(assembly)

    with patch.object(Assembly, "run_live", first):
        assert pull(target, agent, "--until", "ready").code == 0
    finish(target, agent, library)


def test_plex_library_until_ready(
    target: Path, tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """For a Plex library that did not change, only its databases are compared again."""
    library = tmp_path / "vm" / "Library"
    library.parent.mkdir()
    make_library(library, LibraryShape(300, 8_000_000, 2_000_000))
    time.sleep(RACY)
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
    """A live snapshot and a delta are not served as an archive."""
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
