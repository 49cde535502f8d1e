"""After an interrupted pull has filled a volume, the next run can still write."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import racy_seconds
from rig.oracle import rsync_differences, sums_hold
from rig.volume import FRAME, cut_at, pull

from initpuller.volume.reclaim import require_room
from initpuller.volume.records.layout import Layout
from shared.errors import NoSpace
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem")

MIB = 2**20
SIZE = 24 * MIB


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs of 24 MiB."""
    path = tmp_path / "config"
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "plexodus-test", path], check=True
    )
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a library of 10 MiB with one large file and many small ones."""
    library = tmp_path / "vm" / "Library"
    (library / "posters").mkdir(parents=True)
    (library / "large").write_bytes(os.urandom(2 * FRAME))
    for number in range(60):
        (library / "posters" / f"{number:02}.jpg").write_bytes(os.urandom(40_000))
    return library


@pytest.fixture
def agent(new_agent: Callable[[Path], Agent], library: Path) -> Agent:
    """Start an agent for the library."""
    agent = new_agent(library)
    agent.pair()
    agent.start()
    return agent


def fill(volume: Path) -> None:
    """Take all free space, as half a file of an interrupted run does."""
    take_all(volume / ".plexodus" / "staging" / "Library" / "large")


def take_all(path: Path) -> None:
    """Append to a file until the volume is full."""
    with path.open("ab") as file, suppress(OSError):
        while os.write(file.fileno(), bytes(4096)):
            pass


def free(volume: Path) -> int:
    """Return the number of free bytes."""
    about = os.statvfs(volume)
    return about.f_bavail * about.f_frsize


def test_file_outgrows_the_volume_in_the_last_pass(
    volume: Path, agent: Agent, library: Path
) -> None:
    """A file that outgrows the volume exits 15. When it shrinks again, only it is fetched."""
    time.sleep(racy_seconds(2))
    assert pull(volume, agent, "--until", "ready").code == ExitCode.OK
    with (library / "large").open("ab") as file:
        file.write(os.urandom(6 * FRAME))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("initpuller.pull.passes.check_space", lambda *_: None)
        full = pull(volume, agent)

    assert full.code == ExitCode.STORAGE, full.text
    assert "no space left" in full.reason()
    assert free(volume) > MIB
    again = pull(volume, agent)
    assert again.code == ExitCode.STORAGE, again.text
    assert "more bytes" in again.reason()
    os.truncate(library / "large", FRAME)
    asked = len(agent.frames_asked())
    done = pull(volume, agent)
    assert done.code == ExitCode.OK, done.text
    assert len(agent.frames_asked()) - asked == 1
    assert rsync_differences(library, volume / "Library") == []
    assert sums_hold(volume)


@pytest.mark.parametrize("cut", [1, 3], ids=["early", "late"])
@pytest.mark.parametrize("remedy", ["shrunk", "excluded", "enlarged"])
def test_killed_run_left_no_byte_free(
    volume: Path, agent: Agent, library: Path, cut: int, remedy: str
) -> None:
    """The next run frees incomplete content, so that less data or more space is enough."""
    with cut_at("initpuller.volume.staging.staging.Staging.commit", cut):
        pull(volume, agent, "--jobs", "1")
    fill(volume)
    assert free(volume) == 0
    options: tuple[str, ...] = ()
    if remedy == "shrunk":
        (library / "large").unlink()
    elif remedy == "excluded":
        options = ("--exclude", "large")
    else:
        subprocess.run(["mount", "-o", f"remount,size={2 * SIZE}", volume], check=True)

    done = pull(volume, agent, *options)

    assert done.code == ExitCode.OK, done.text
    if remedy == "excluded":
        times = library.stat()
        (library / "large").unlink()
        os.utime(library, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert rsync_differences(library, volume / "Library") == []
    assert sums_hold(volume)


def test_full_of_complete_files(volume: Path, agent: Agent, library: Path) -> None:
    """The last frames are discarded to free space for records, and only these are fetched again."""
    with cut_at("initpuller.volume.staging.staging.Staging.finish"):
        pull(volume, agent, "--jobs", "1")
    subprocess.run(["mount", "-o", f"remount,size={SIZE - free(volume)}", volume], check=True)
    assert free(volume) == 0
    asked = len(agent.frames_asked())

    refused = pull(volume, agent)

    assert refused.code == ExitCode.STORAGE, refused.text
    assert "more bytes" in refused.reason()
    assert free(volume) > 0
    subprocess.run(["mount", "-o", f"remount,size={SIZE}", volume], check=True)
    done = pull(volume, agent)
    assert done.code == ExitCode.OK, done.text
    assert 0 < len(agent.frames_asked()) - asked <= 2
    assert rsync_differences(library, volume / "Library") == []
    assert sums_hold(volume)


def test_full_of_something_else(volume: Path, agent: Agent) -> None:
    """Foreign content that fills the volume exits 15, and verified content is not discarded."""
    with cut_at("initpuller.volume.publish.publish.publish"):
        pull(volume, agent)
    frames = len(agent.frames_asked())
    take_all(volume / "filler")

    refused = pull(volume, agent)

    assert refused.code == ExitCode.STORAGE, refused.text
    (volume / "filler").unlink()
    assert pull(volume, agent).code == ExitCode.OK
    assert len(agent.frames_asked()) == frames
    assert sums_hold(volume)


def test_no_room_for_the_last_records_before_a_commit(volume: Path, agent: Agent) -> None:
    """Missing space for the last records is found before the cutover is committed."""
    with cut_at("initpuller.volume.publish.publish.publish"):
        pull(volume, agent)
    require_room(Layout(str(volume)))
    take_all(volume / "filler")
    with pytest.raises(NoSpace, match="bytes of records"):
        require_room(Layout(str(volume)))
