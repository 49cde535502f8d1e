"""Volumes that are too small, become too small, or just fit. They are real, of a few MiB."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from rig.any_manifest import ROOT, any_manifest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, running
from rig.volume import cut_at, grow_tiny, pull

from initpuller.volume.filesystem import FOLDER, opened
from initpuller.volume.records.journal import Journal
from initpuller.volume.space import _at_most, _needed
from initpuller.volume.staging.staging import Staging
from shared.frames.manifest_file import write_manifest
from shared.frames.plan import FRAME
from shared.program.exit_codes import ExitCode
from shared.tree.manifest import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount the small volumes that this is about"
)
MIB = 2**20
PAGE = 4096
PROMPTLY = 5.0
"""Seconds; with tries and pauses it would take longer."""


class Volume:
    """A tmpfs whose size can be changed."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self.size = 0
        self.inodes = 0
        subprocess.run(["mount", "-t", "tmpfs", "plexodus-test", path], check=True)

    def limit(self, size: int = 256 * MIB, inodes: int = 10_000) -> None:
        """Set the size in bytes and the number of files."""
        self.size, self.inodes = size, inodes
        how = f"remount,size={size},nr_inodes={inodes}"
        subprocess.run(["mount", "-o", how, self.path], check=True)

    def gone(self) -> None:
        """Unmount the volume."""
        subprocess.run(["umount", "--lazy", self.path], check=True)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent with a tiny library for all tests."""
    place = tmp_path_factory.mktemp("space")
    agent = Agent(place / "state", grow_tiny(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """Return a volume without a limit."""
    volume = Volume(tmp_path / "config")
    yield volume
    volume.gone()


def _missing(text: str, what: str) -> int:
    """Return how many ``what`` the message reports as missing."""
    found = re.search(rf"(\d+) {what} are missing", text)
    assert found, text
    return int(found[1])


def _is_whole(volume: Volume, agent: Agent) -> bool:
    same = rsync_differences(agent.library, volume.path / "Library") == []
    return same and sums_hold(volume.path)


def _enough(volume: Volume, agent: Agent) -> int:
    """Return the smallest accepted size in bytes, found from the error message as a user would."""
    volume.limit(3 * MIB)
    refused = pull(volume.path, agent)
    assert refused.code == ExitCode.STORAGE, refused.text
    return -(-(3 * MIB + _missing(refused.reason(), "bytes")) // PAGE) * PAGE


def test_volume_too_small_is_refused_before_any_frame(volume: Volume, agent: Agent) -> None:
    """A small volume exits 15 with the missing bytes.

    With just as many more, the next run succeeds.
    """
    before = agent.frames_asked()

    enough = _enough(volume, agent)

    assert agent.frames_asked() == before
    assert not (volume.path / "Library").exists()
    volume.limit(enough)
    done = pull(volume.path, agent)
    assert done.code == ExitCode.OK, done.text
    assert _is_whole(volume, agent)


def test_too_few_inodes_are_refused_before_any_frame(volume: Volume, agent: Agent) -> None:
    """Too few inodes exit 15 with the missing number.

    With just as many more, the next run succeeds.
    """
    before = agent.frames_asked()
    volume.limit(inodes=14)

    refused = pull(volume.path, agent)

    assert refused.code == ExitCode.STORAGE, refused.text
    assert agent.frames_asked() == before
    assert not (volume.path / "Library").exists()
    volume.limit(inodes=14 + _missing(refused.reason(), "inodes"))
    done = pull(volume.path, agent)
    assert done.code == ExitCode.OK, done.text
    assert _is_whole(volume, agent)


def test_no_room_for_the_first_record(volume: Volume, agent: Agent) -> None:
    """A volume that is already full exits 15, and no request is made."""
    volume.limit(MIB)
    requests = agent.requests()
    volume.limit(inodes=1)

    done = pull(volume.path, agent)

    assert done.code == ExitCode.STORAGE, done.text
    assert agent.requests() == requests
    assert list(volume.path.iterdir()) == []


def test_volume_filled_by_something_else_meanwhile(
    volume: Volume, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that fills up exits 15 at once with the missing bytes. Later, the pull resumes."""
    volume.limit(8 * MIB)
    filler, real = volume.path / "filler", Staging.commit

    def commit(work: Staging, frames: list[tuple[int, str]]) -> None:
        real(work, frames)
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(PAGE)):
                pass

    began = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr("initpuller.pull.transfer.BATCH", 1)
        patched.setattr(Staging, "commit", commit)
        full = pull(volume.path, agent, "--jobs", "1")

    assert full.code == ExitCode.STORAGE, full.text
    assert time.monotonic() - began < PROMPTLY
    assert _missing(full.reason(), "bytes") > 0
    assert "trying again" not in full.text
    assert not (volume.path / "Library").exists()
    filler.unlink()
    asked = len(agent.frames_asked())
    done = pull(volume.path, agent)
    assert done.code == ExitCode.OK, done.text
    assert len(agent.frames_asked()) - asked < 4
    assert _is_whole(volume, agent)


@pytest.mark.parametrize(("commits", "jobs"), [(1, "4"), (3, "1")])
def test_resumed_run_that_just_fits_is_not_refused(
    volume: Volume, agent: Agent, commits: int, jobs: str
) -> None:
    """The space of content in staging, in the journal or not, is not required a second time."""
    enough = _enough(volume, agent)
    volume.limit(enough)
    with cut_at("initpuller.volume.staging.staging.Staging.commit", commits):
        pull(volume.path, agent, "--jobs", jobs)

    done = pull(volume.path, agent)

    assert done.code == ExitCode.OK, done.text
    assert _is_whole(volume, agent)


@pytest.mark.parametrize("safe", [[0, 1], [3, 4], [1, 2, 3], []])
def test_sparse_file_whose_middle_arrived_first(tmp_path: Path, safe: list[int]) -> None:
    """Data on the volume is not required again, whichever blocks a killed run has fetched."""
    data, there = 8 * MIB, 5 * MIB
    top = Entry(ROOT, Kind.DIRECTORY, 0o755, 0, 0, mtime_ns=1, ctime_ns=1, inode=1)
    file = msgspec.structs.replace(
        top, path=ROOT + b"/x", kind=Kind.FILE, size=5 * FRAME, data=data
    )
    manifest = write_manifest(str(tmp_path / "manifest"), ROOT, [top, file])
    staging = tmp_path / "records" / "staging"
    (staging / os.fsdecode(ROOT)).mkdir(parents=True)
    with (staging / os.fsdecode(file.path)).open("wb") as arrived:
        arrived.write(os.urandom(there))
        arrived.truncate(file.size)
    journal = Journal(str(tmp_path / "journal"), len(manifest.plan))
    with closing(journal), opened(str(staging), FOLDER) as fd:
        [nothing, *_] = _needed(fd, manifest, journal, PAGE)
        journal.done((1 + number, "0" * 64) for number in safe)
        [needed, *_] = _needed(fd, manifest, journal, PAGE)
    assert needed == nothing
    assert data - there <= needed < data - there + 2 * MIB


@given(any_manifest())
def test_space_that_is_said_to_suffice_suffices(tree: list[Entry]) -> None:
    """The quick estimate is never below the exact count, so that no volume is filled by it."""
    moved = [msgspec.structs.replace(each, kept=False) for each in tree]
    with tempfile.TemporaryDirectory() as place:
        manifest = write_manifest(f"{place}/manifest", ROOT, moved)
        staging = Path(place, "records", "staging")
        staging.mkdir(parents=True)
        journal = Journal(f"{place}/journal", len(manifest.plan))
        with closing(journal), opened(str(staging), FOLDER) as fd:
            exact = _needed(fd, manifest, journal, PAGE)

    assert all(quick >= each for quick, each in zip(_at_most(manifest, PAGE), exact, strict=True))
