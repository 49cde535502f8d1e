"""The agent starts and serves although a file of its state folder is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from rig.volume import pull

from agent.plan.record import RECORD, read_record
from agent.snapshots.client_snapshots import Handouts
from agent.snapshots.store import SnapshotStore
from agent.source.identity import library_id
from agent.source.library import CurrentLibrary
from shared.errors import ConfigurationError, SnapshotGone
from shared.native import native
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

COLD = SnapshotRequest("cold")


def flip_in_a_key(path: Path) -> None:
    """Flip the highest bit of a byte in the first key, which is no UTF-8 then."""
    _flip(path, b'"')


def flip_in_a_value(path: Path) -> None:
    """Flip the highest bit of a byte in the first text that is a value."""
    _flip(path, b':"')


def _flip(path: Path, before: bytes) -> None:
    content = bytearray(path.read_bytes())
    start = content.find(before)  # compressed content may not have it
    content[len(content) // 2 if start < 0 else start + len(before)] ^= 0x80
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Leave nothing of it."""
    path.write_bytes(b"")


def make_unreadable(path: Path) -> None:
    """Have each read fail, as on a disk with damaged blocks."""
    path.unlink()
    path.mkdir()


@pytest.fixture
def current(tmp_path: Path) -> CurrentLibrary:
    """Return a library of one file."""
    (tmp_path / "Library").mkdir()
    (tmp_path / "Library" / "file").write_bytes(b"content")
    (tmp_path / "state").mkdir()
    return CurrentLibrary(str(tmp_path / "Library"), str, str(tmp_path / "state"))


@pytest.fixture
def store(tmp_path: Path, current: CurrentLibrary) -> SnapshotStore:
    """Return the snapshots of that library."""
    return SnapshotStore(str(tmp_path / "state"), current)


FLIPS = [flip_in_a_key, flip_in_a_value]
DAMAGES = pytest.mark.parametrize("damage", [*FLIPS, truncate, make_unreadable])


@DAMAGES
def test_damaged_list_of_clients(
    tmp_path: Path, store: SnapshotStore, damage: Callable[[Path], None]
) -> None:
    """A new list begins, and the agent starts."""
    snapshot = store.scan(COLD).id
    handouts = Handouts(str(tmp_path / "state"), store)
    handouts.remember("curl", snapshot)
    damage(tmp_path / "state" / "handouts.json")
    assert Handouts(str(tmp_path / "state"), store).of("curl") is None


@DAMAGES
def test_damaged_origin_of_a_snapshot(
    tmp_path: Path,
    store: SnapshotStore,
    current: CurrentLibrary,
    damage: Callable[[Path], None],
) -> None:
    """The agent starts, and nothing of the snapshot is trusted by its times."""
    snapshot = store.scan(COLD).id
    damage(tmp_path / "state" / "snapshots" / snapshot / "origin.json")
    opened = SnapshotStore(str(tmp_path / "state"), current).open(snapshot)
    assert not opened.telling


@DAMAGES
@pytest.mark.parametrize("part", ["manifest.jsonl.zst", "omitted-*", "snapshot.json"])
def test_damaged_part_of_a_snapshot(
    tmp_path: Path,
    store: SnapshotStore,
    current: CurrentLibrary,
    part: str,
    damage: Callable[[Path], None],
) -> None:
    """The snapshot counts as gone, as a base too, and the next scan makes it again."""
    snapshot = store.scan(COLD).id
    for asked in (COLD, SnapshotRequest("cold", base=snapshot)):
        [path] = (tmp_path / "state" / "snapshots" / snapshot).glob(part)
        damage(path)
        store = SnapshotStore(str(tmp_path / "state"), current)
        with pytest.raises(SnapshotGone):
            store.scan(asked) if asked.base else store.open(snapshot)
        assert store.scan(COLD).id == snapshot
        assert store.open(snapshot).about.id == snapshot


@pytest.mark.parametrize("part", ["manifest.jsonl.zst", "omitted-*"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_base_that_is_damaged_while_the_agent_runs(
    tmp_path: Path,
    store: SnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    *,
    is_fast: bool,
) -> None:
    """A scan finds it, and from then on the base is gone."""
    monkeypatch.setattr("agent.snapshots.store.native", native if is_fast else None)
    snapshot = store.scan(COLD).id
    [path] = (tmp_path / "state" / "snapshots" / snapshot).glob(part)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(SnapshotGone, match="the base is damaged"):
        store.scan(SnapshotRequest("cold", base=snapshot))
    with pytest.raises(SnapshotGone):
        store.open(snapshot)
    assert store.scan(COLD).id == snapshot


def test_pull_with_a_damaged_base(ready: Agent, target: Path) -> None:
    """The pull succeeds although the manifest of its base is damaged in the state folder."""
    ready.stop()
    for path in (ready.state / "snapshots").glob("*/manifest.jsonl.zst"):
        truncate(path)
    ready.start()
    done = pull(target, ready)
    assert done.code == 0, done.text


@DAMAGES
def test_damaged_id_of_the_library(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The library has the id of its path."""
    before = library_id(str(tmp_path), str(tmp_path))
    damage(tmp_path / "library.json")
    assert library_id(str(tmp_path), str(tmp_path)) == before


@DAMAGES
def test_damaged_record_of_a_plan(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The error names the file."""
    path = tmp_path / RECORD
    path.write_bytes(msgspec.json.encode({"any": "record"}))
    damage(path)
    with pytest.raises(ConfigurationError, match="not the record of a plan"):
        read_record(str(tmp_path))
