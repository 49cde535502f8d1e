"""Frames that the accelerator builds are those that Python builds, or it builds none."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.generated_tree import STEPS, grow
from rig.scanned import scanned

from agent.frames import builder
from agent.frames.builder import BuiltFrame, build_frame
from shared.errors import PlexodusError
from shared.frames.plan import FRAME
from shared.frames.tar_layout import BLOCK
from shared.native import native
from shared.tree.manifest import Kind as EntryKind
from shared.tree.manifest import spell

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind

if native is None:
    pytest.skip("the accelerator is not installed", allow_module_level=True)

_TICK = 0.02
"""Seconds after which every filesystem gives a new ctime."""


class Result(NamedTuple):
    """The end of an attempt to build a frame: the frame and the digests, or an error."""

    built: tuple[bytes, bytes] | None
    digests: list[bytes | None]
    error: tuple[type, str] | None


def attempt(snapshot: SnapshotFiles, number: int) -> Result:
    """Build a frame, and forget what is known of the snapshot's digests."""
    snapshot.digests.put((each, None) for each in range(snapshot.about.entries))
    try:
        tar, tag = build_frame(snapshot, number)
    except PlexodusError as error:
        return Result(None, list(snapshot.digests), (type(error), str(error)))
    return Result((bytes(tar), tag), list(snapshot.digests), None)


def usual(snapshot: SnapshotFiles, number: int) -> BuiltFrame | None:
    """Return what the accelerator alone builds."""
    return builder._build_usual(snapshot, snapshot.manifest.plan[number])


def check_same(snapshot: SnapshotFiles) -> list[bytes]:
    """Compare all frames with those of Python alone; return those that were built."""
    tars = []
    for number in range(len(snapshot.manifest.plan)):
        with mock.patch.object(builder, "native", None):
            python = attempt(snapshot, number)
        assert attempt(snapshot, number) == python
        if python.built is not None:
            tars.append(python.built[0])
    return tars


@settings(max_examples=60)
@given(steps=STEPS, kind=st.sampled_from(["cold", "live"]), placed=st.booleans())
def test_frames_equal_those_of_python(steps: list[Any], kind: Kind, *, placed: bool) -> None:
    """Every byte is the same, GNU tar lists all, and only odd entries are left to Python."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "Plex Media Server" if placed else "Library")
        grow(library, steps)
        check_frames(scanned(library, Path(folder, "state"), kind, placed=placed))


@pytest.mark.parametrize("kind", ["cold", "live"])
def test_blocks_equal_those_of_python(tmp_path: Path, kind: Kind) -> None:
    """The blocks of a large file, with and without a header, are those of Python."""
    library = tmp_path / "Library"
    library.mkdir()
    for name, size in (("a", 3), ("large", 2 * FRAME + 77), ("z", 0)):
        (library / name).write_bytes(os.urandom(size))
    check_frames(scanned(library, tmp_path / "state", kind))


def is_odd(entry: Entry) -> bool:
    """Return whether only Python can make the entry's header."""
    has_bytes = any(spell(name)[1] for name in (entry.path, entry.link))
    return has_bytes or bool(entry.xattrs) or entry.mtime_ns >= 2**63


def check_frames(snapshot: SnapshotFiles) -> None:
    """Compare all frames, and the archive, with what they are to be."""
    tars = check_same(snapshot)
    for frame in snapshot.manifest.plan:
        entries = snapshot.manifest.entries(frame.first, frame.count)
        assert (usual(snapshot, frame.number) is None) == any(map(is_odd, entries))
    listed = subprocess.run(
        ["tar", "-t", "--null", "--quoting-style=literal"],
        input=b"".join(tars),
        capture_output=True,
        check=True,
    )
    names = [each.path + b"/" * (each.kind is EntryKind.DIRECTORY) for each in snapshot.manifest]
    assert listed.stdout == b"".join(name + b"\n" for name in names)


def test_rehearsal(tmp_path: Path) -> None:
    """Where a copy of a database is read, and when they are gone, Python builds the frame."""
    library, state = tmp_path / "Library", tmp_path / "state"
    library.mkdir()
    (library / "0").write_bytes(bytes(FRAME))
    (library / "a.db").write_bytes(b"torn")
    snapshot = scanned(library, state, "rehearsal")
    (state / "databases").mkdir()
    (state / "databases" / hashlib.sha256(b"Library/a.db").hexdigest()).write_bytes(b"copy")
    assert snapshot.copies is not None
    snapshot.copies.look()
    _, _, database = check_same(snapshot)
    assert usual(snapshot, 1) is not None
    assert (usual(snapshot, 2), database[BLOCK : BLOCK + 4]) == (None, b"copy")
    shutil.rmtree(state / "databases")
    snapshot.copies.look()
    assert len(check_same(snapshot)) == 1  # that of the folder


def _written(library: Path) -> None:
    (library / "folder/file").write_bytes(b"CONTENT")


def _shorter(library: Path) -> None:
    os.truncate(library / "folder/file", 3)


def _longer(library: Path) -> None:
    with (library / "folder/file").open("ab") as file:
        file.write(b"more")


def _touched(library: Path) -> None:
    info = (library / "folder/file").stat()
    os.utime(library / "folder/file", ns=(info.st_atime_ns, info.st_mtime_ns))


def _replaced(library: Path) -> None:
    info = (library / "folder/file").stat()
    (library / "new").write_bytes(b"content")
    os.utime(library / "new", ns=(info.st_atime_ns, info.st_mtime_ns))
    (library / "new").replace(library / "folder/file")


def _gone(library: Path) -> None:
    (library / "folder/file").unlink()


def _symlink(library: Path) -> None:
    (library / "folder/file").rename(library / "moved")
    (library / "folder/file").symlink_to("../moved")


def _fifo(library: Path) -> None:
    (library / "folder/file").unlink()
    os.mkfifo(library / "folder/file")


def _folder(library: Path) -> None:
    (library / "folder/file").unlink()
    (library / "folder/file").mkdir()


def _parent_is_a_symlink(library: Path) -> None:
    (library / "folder").rename(library / "moved")
    (library / "folder").symlink_to("moved")


def _parent_is_gone(library: Path) -> None:
    shutil.rmtree(library / "folder")


def _library_is_another(library: Path) -> None:
    library.rename(library.parent / "moved")
    shutil.copytree(library.parent / "moved", library)


CHANGES = [
    _written,
    _shorter,
    _longer,
    _touched,
    _replaced,
    _gone,
    _symlink,
    _fifo,
    _folder,
    _parent_is_a_symlink,
    _parent_is_gone,
    _library_is_another,
]


@pytest.mark.parametrize("kind", ["cold", "live"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_since_the_scan(tmp_path: Path, change: Callable[[Path], None], kind: Kind) -> None:
    """A changed file is in no frame of a cold snapshot; a live frame is that of Python."""
    library = tmp_path / "Library"
    (library / "folder").mkdir(parents=True)
    (library / "folder/file").write_bytes(b"content")
    snapshot = scanned(library, tmp_path / "state", kind)
    assert usual(snapshot, 0) is not None
    time.sleep(_TICK)
    change(library)
    built = check_same(snapshot)
    if kind == "cold":
        assert built == []


def test_changed_while_it_is_read(tmp_path: Path) -> None:
    """A frame has the content of the scan only, or it is not built."""
    library, size = tmp_path / "Library", 3_000_000
    library.mkdir()
    file = library / "file"
    for number in range(30):
        file.write_bytes(b"0" * size)
        time.sleep(_TICK)
        snapshot = scanned(library, tmp_path / f"state{number}")

        def write() -> None:
            with file.open("r+b") as opened:
                opened.write(b"1" * size)

        writer = threading.Thread(target=write)
        writer.start()
        built = usual(snapshot, 0)
        writer.join()
        if built is not None:
            assert bytes(built.tar).count(b"1" * 1000) == 0
        assert usual(snapshot, 0) is None


_MUTATIONS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=3)),
    min_size=1,
    max_size=3,
)
_REST = b',"mode":420,"uid":0,"gid":0,"mtime_ns":0,"ctime_ns":0,"inode":1,"size":512}'
_LINES = st.sampled_from(
    [
        b'["Library/x","file",420,0,0,0,0,0]',
        b'{"path":"Library/../../etc/passwd","kind":"file"' + _REST,
        b'{"path":"/etc/passwd","kind":"file"' + _REST,
        b'{"path":"Library/sub/..","kind":"file"' + _REST,
        b'{"path":"Library/","kind":"file"' + _REST,
        b'{"path":"Library/a","kind":{"file":null}' + _REST,
        b'{"path":"Library/s","kind":"symlink"' + _REST,
        b'{"path":"Library/s","kind":"dir"' + _REST.replace(b"420", b"9999").replace(b"512", b"0"),
    ]
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> SnapshotFiles:
    """A live snapshot of a few files: most of what its lines say is not compared."""
    place = tmp_path_factory.mktemp("scan")
    (place / "Library/sub").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/c"):
        (place / "Library" / name).write_bytes(b"content")
    (place / "Library/s").symlink_to("a")
    return scanned(place / "Library", place / "state", "live")


@settings(max_examples=400)
@given(mutations=_MUTATIONS, extra=st.none() | _LINES)
def test_mutated_lines(
    scan: SnapshotFiles, mutations: list[tuple[float, int, bytes]], extra: bytes | None
) -> None:
    """Damaged lines give no frame, or that which Python reads from them."""
    whole = scan.manifest.plan[0]
    lines = b"\n".join((*scan.manifest.lines(whole.first, whole.count), b""))
    for where, cut, new in mutations:
        at = int(where * len(lines))
        lines = lines[:at] + new + lines[at + cut :]
    if extra is not None:
        lines += extra + b"\n"
    given = lines.splitlines()
    with mock.patch.object(scan.manifest, "lines", return_value=given):
        if usual(scan, 0) is not None:
            check_same(scan)
