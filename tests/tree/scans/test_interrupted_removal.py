"""A removal in the state folder that is interrupted leaves nothing that counts as a whole."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.failing_calls import FailingCall

from agent.frames.builder import build_frame
from agent.snapshots.store import SnapshotStore
from agent.snapshots.whole_tree import complete_digests
from agent.source.library import CurrentLibrary
from shared.errors import SnapshotGone
from shared.frames.codec import Encoding
from shared.wire.protocol import SNAPSHOTS, SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

    from agent.snapshots.store import OpenSnapshot

FILES = (
    *("manifest.jsonl.zst", "omitted-", "snapshot.json", "origin.json"),
    *("digests", "misread", "index.tar"),
)
LIVE, REHEARSAL = SnapshotRequest("live"), SnapshotRequest("rehearsal")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a library with two databases."""
    library = tmp_path / "Library"
    library.mkdir()
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(library / name)) as database:
            database.execute("CREATE TABLE t (x)")
            database.commit()
    return library


@pytest.fixture
def new_store(tmp_path: Path, library: Path) -> Callable[[], SnapshotStore]:
    """Return a function that starts an agent's store of snapshots."""
    state = str(tmp_path / "state")
    os.makedirs(state)
    return lambda: SnapshotStore(state, CurrentLibrary(str(library), str, state))


def check_copies_are_gone(snapshot: OpenSnapshot) -> None:
    """Check that neither the frame nor the digests can be had."""
    with pytest.raises(SnapshotGone):
        build_frame(snapshot, 0)
    with pytest.raises(SnapshotGone):
        complete_digests(snapshot)


def test_copy_that_cannot_be_removed(new_store: Callable[[], SnapshotStore]) -> None:
    """A rehearsal gets no zeros for a database whose copy was removed when the other was not."""
    store = new_store()
    snapshot = store.open(store.scan(REHEARSAL).id)
    with FailingCall(2, errno.EIO, ("unlink",)):
        store.scan(LIVE)
    check_copies_are_gone(snapshot)
    check_copies_are_gone(new_store().open(snapshot.about.id))


def test_copies_that_cannot_be_renamed(new_store: Callable[[], SnapshotStore]) -> None:
    """The scan fails, and the rehearsal has all of its copies."""
    store = new_store()
    snapshot = store.open(store.scan(REHEARSAL).id)
    with FailingCall(1, errno.EIO, ("rename",)), pytest.raises(OSError, match=r"Input/output"):
        store.scan(LIVE)
    complete_digests(snapshot)
    assert None not in list(snapshot.digests)[1:]


def test_agent_killed_while_it_removes_copies(
    new_store: Callable[[], SnapshotStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next agent serves no rehearsal with a part of its copies, and removes the rest."""
    store, unlink, calls = new_store(), os.unlink, []
    snapshot = store.scan(REHEARSAL).id

    def killed(*args: object, **kwargs: object) -> None:
        """Remove the first file only."""
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        unlink(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", killed)
        with pytest.raises(Killed):
            store.scan(LIVE)
    check_copies_are_gone(new_store().open(snapshot))
    assert [path.name for path in (tmp_path / "state" / "snapshots").iterdir()] == [snapshot]


def test_one_copy_is_lost(new_store: Callable[[], SnapshotStore], tmp_path: Path) -> None:
    """Neither zeros nor the file in the library are sent in place of a lost copy."""
    store = new_store()
    snapshot = store.scan(REHEARSAL).id
    next((tmp_path / "state" / "snapshots" / snapshot / "databases").iterdir()).unlink()
    check_copies_are_gone(store.open(snapshot))
    check_copies_are_gone(new_store().open(snapshot))


def scan_others(store: SnapshotStore, library: Path) -> None:
    """Make four other snapshots, so that an earlier one is removed."""
    for number in range(4):
        (library / f"{number}").touch()
        store.scan(LIVE)


@pytest.mark.parametrize("removed", FILES)
def test_agent_killed_while_it_removes_a_snapshot(
    new_store: Callable[[], SnapshotStore],
    tmp_path: Path,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
    removed: str,
) -> None:
    """The snapshot is gone, whatever is left of it: it is no base with entries read wrongly."""
    store = new_store()
    snapshot = store.open(store.scan(LIVE).id)
    snapshot.misread.add([1])
    snapshot.representation(Encoding.TAR)
    name, real = snapshot.about.id, shutil.rmtree
    hits: list[str] = []

    def killed(path: str, *, ignore_errors: bool = False) -> None:
        """Remove one file of that snapshot, then end. Other folders are removed as usual."""
        if not os.path.exists(os.path.join(path, "misread")):
            return real(path, ignore_errors=ignore_errors)
        hits.extend(each for each in os.listdir(path) if each.startswith(removed))
        os.unlink(os.path.join(path, *hits))
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            scan_others(store, library)
    assert len(hits) == 1
    store = new_store()
    with pytest.raises(SnapshotGone):
        store.open(name)
    with pytest.raises(SnapshotGone):
        store.scan(SnapshotRequest("live", base=name))
    assert len(list((tmp_path / "state" / "snapshots").iterdir())) == 4


@pytest.mark.parametrize("removed", ["manifest.jsonl.zst", "omitted-", "snapshot.json"])
def test_part_of_a_snapshot(
    new_store: Callable[[], SnapshotStore], tmp_path: Path, removed: str
) -> None:
    """A snapshot of which an older release has removed a part is gone, and can be made again."""
    name = new_store().scan(LIVE).id
    [path] = (tmp_path / "state" / "snapshots" / name).glob(f"{removed}*")
    path.unlink()
    with pytest.raises(SnapshotGone):
        new_store().scan(SnapshotRequest("live", base=name))
    assert new_store().scan(LIVE).id == name
    assert new_store().open(name).about.id == name


def test_snapshot_that_is_removed_while_it_is_read(agent: Agent) -> None:
    """The puller gets an answer after which it scans, not that the agent's disk refuses."""
    name = agent.scan().id
    sums = agent.get(f"{SNAPSHOTS}/{name}/SHA256SUMS")
    (agent.state / "snapshots" / name / "manifest.jsonl.zst").unlink()
    with pytest.raises(AssertionError, match="no-such-snapshot"):
        agent.get(f"{SNAPSHOTS}/{name}/SHA256SUMS")
    assert agent.scan().id == name
    assert agent.get(f"{SNAPSHOTS}/{name}/SHA256SUMS") == sums
