"""The accelerator's walk finds what Python's finds, and misses no change."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rig import odd_tree
from rig.generated_tree import STEPS, grow
from rig.scanned import scanned

from agent.snapshots import whole_tree
from agent.snapshots.whole_tree import check_unchanged
from shared.errors import SourceChanged
from shared.native import native
from shared.tree import walk as walk_module
from shared.tree.excludes import ends_of, matcher
from shared.tree.manifest import format_line, parse_line
from shared.tree.walk import Tree, TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.omitted import Omitted

if native is None:
    pytest.skip("the accelerator is not installed", allow_module_level=True)

_TICK = 0.02
"""Seconds after which every filesystem gives a new ctime."""


class Found(NamedTuple):
    """The findings of a walk."""

    lines: bytes
    omitted: list[Omitted]
    unreadable: list[str]


def find(library: Path, options: WalkOptions, *, is_fast: bool) -> tuple[Found, int]:
    """Return what a walk finds, and how many entries Python looked at."""
    omitted: list[Omitted] = []
    by_python = mock.Mock(side_effect=format_line)
    with opened(library.parent) as base, mock.patch.object(walk_module, "format_line", by_python):
        walk = TreeWalk(Tree(base, os.fsencode(library.name)), options, omit=omitted.append)
        lines = b"".join(walk.lines() if is_fast else map(format_line, walk.entries()))
    return Found(lines, omitted, walk.unreadable), by_python.call_count


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open a folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def check_same(library: Path, options: WalkOptions) -> int:
    """Compare both walks of ``library``; return how many entries were left to Python."""
    python, _ = find(library, options, is_fast=False)
    ours, by_python = find(library, options, is_fast=True)
    assert ours == python
    return by_python


_GLOBS = st.text("ab.*?[]!-/", max_size=6)
_PATTERNS = st.lists(
    st.one_of(st.sampled_from(["*.pid", "n*", "/a", "*/b.db"]), _GLOBS), max_size=3
)


@settings(max_examples=100)
@given(steps=STEPS, exclude=_PATTERNS, inside=st.booleans())
def test_walk_equals_that_of_python(steps: list[Any], exclude: list[str], *, inside: bool) -> None:
    """The lines and the records of what is left out are the same."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "Library")
        grow(library, steps)
        os.mkfifo(library / "a fifo")
        check_same(library, WalkOptions(tuple(exclude), inside=inside))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["Library", 'Lib"rary'])
def test_walk_of_every_oddity(tmp_path: Path, name: str, *, inside: bool) -> None:
    """A tree with everything that a filesystem can hold has the same lines."""
    library = tmp_path / name
    odd_tree.grow(library)
    check_same(library, WalkOptions(inside=inside))


def test_usual_entries_need_no_python(tmp_path: Path) -> None:
    """Python looks at the library itself, at hard links and what it may leave out."""
    library = tmp_path / "Library"
    for number in range(30):
        (library / f"folder {number}").mkdir(parents=True)
        for name in ("file", "empty", "x" * 150):
            (library / f"folder {number}" / name).write_bytes(name.encode()[:4] * 9)
        (library / f"folder {number}" / "link").symlink_to("file" * 30)
    for number in range(1000):
        (library / f"{number}").touch()
    assert check_same(library, WalkOptions(("*.pid", "/Cache", "/Da/com.*.db-[0-9]*"))) == 1
    os.link(library / "1", library / "2.link")
    (library / "plex.pid").touch()
    assert check_same(library, WalkOptions(("*.pid",))) == 1 + 2


@settings(max_examples=300)
@example(["[a"], b"[a", b"")
@example(["a[]b]"], b"ab", b"a]")
@given(
    st.lists(_GLOBS, max_size=3), *[st.text("ab.[]!-", min_size=1, max_size=4).map(str.encode)] * 2
)
def test_ends_of_patterns(patterns: list[str], above: bytes, name: bytes) -> None:
    """Each name and path that a pattern leaves out begins and ends as the accelerator expects."""
    below = above + b"/" + name if above else name
    is_excluded = matcher(tuple(patterns))
    judged = [
        (below if is_whole else name, head, tail)
        for is_whole, head, tail in ends_of(tuple(patterns))
    ]
    if is_excluded is not None and is_excluded(b"Library/" + below, name):
        assert any(each.startswith(head) and each.endswith(tail) for each, head, tail in judged)


def test_walk_while_everything_changes(tmp_path: Path) -> None:
    """A live walk beside renames and removals ends, in order, without an error."""
    library = tmp_path / "Library"
    for number in range(20):
        (library / f"{number}").mkdir(parents=True)
        for each in range(20):
            (library / f"{number}/{each}").write_bytes(b"x")
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for number in range(20):
                with suppress(OSError):
                    (library / f"{number}").rename(library / f"moved {number}")
                    (library / f"moved {number}/3").symlink_to("4")
                    (library / f"moved {number}").rename(library / f"{number}")
                    (library / f"{number}/3").unlink()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(50):
            with opened(tmp_path) as base:
                walk = TreeWalk(Tree(base, b"Library"), WalkOptions(live=True))
                lines = b"".join(walk.lines()).splitlines()
            paths = [parse_line(line).path.replace(b"/", b"\0") for line in lines]
            assert walk.unreadable == []
            assert paths == sorted(set(paths))
    finally:
        done.set()
        changing.join()


def _new(library: Path) -> None:
    (library / "folder/new").touch()


def _gone(library: Path) -> None:
    (library / "z").unlink()


def _folder_gone(library: Path) -> None:
    shutil.rmtree(library / "folder")


def _written(library: Path) -> None:
    (library / "folder/file").write_bytes(b"CONTENT")


def _mode(library: Path) -> None:
    (library / "folder/file").chmod(0o600)


def _other_target(library: Path) -> None:
    (library / "link").unlink()
    (library / "link").symlink_to("fold")


def _other_kind(library: Path) -> None:
    (library / "z").unlink()
    (library / "z").mkdir()


def _xattr(library: Path) -> None:
    os.setxattr(library / "folder", "user.new", b"")


def _hard_link(library: Path) -> None:
    os.link(library / "z", library / "zz")


def _same_content(library: Path) -> None:
    info = (library / "z").stat()
    shutil.copyfile(library / "z", library / "copy")
    os.utime(library / "copy", ns=(info.st_atime_ns, info.st_mtime_ns))
    (library / "copy").replace(library / "z")


CHANGES = [
    _new,
    _gone,
    _folder_gone,
    _written,
    _mode,
    _other_target,
    _other_kind,
    _xattr,
    _hard_link,
    _same_content,
]


@pytest.mark.parametrize("change", CHANGES)
def test_change_after_the_scan(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The second look finds each change, and names the same entry as without the accelerator."""
    library = tmp_path / "Library"
    (library / "folder").mkdir(parents=True)
    for name in ("folder/file", "z"):
        (library / name).write_bytes(b"content")
    (library / "link").symlink_to("folder")
    snapshot = scanned(library, tmp_path / "state")
    assert looks_unchanged(snapshot)
    time.sleep(_TICK)
    change(library)
    assert not looks_unchanged(snapshot)
    assert named_change(snapshot) == named_change(snapshot, is_fast=False)


def test_second_look_at_every_oddity(tmp_path: Path) -> None:
    """A tree with everything that a filesystem can hold is unchanged, and then it is not."""
    library = tmp_path / "Library"
    odd_tree.grow(library)
    snapshot = scanned(library, tmp_path / "state")
    assert looks_unchanged(snapshot)
    check_unchanged(snapshot)
    time.sleep(_TICK)
    (library / "names" / "new").touch()
    assert not looks_unchanged(snapshot)
    assert named_change(snapshot) == named_change(snapshot, is_fast=False)


def looks_unchanged(snapshot: SnapshotFiles) -> bool:
    """Return what the accelerator finds, without Python's proof."""
    assert native is not None
    return whole_tree._is_unchanged(snapshot, native)


def named_change(snapshot: SnapshotFiles, *, is_fast: bool = True) -> str:
    """Return the path in the error of the second look."""
    with (
        mock.patch.object(whole_tree, "native", native if is_fast else None),
        pytest.raises(SourceChanged) as raised,
    ):
        check_unchanged(snapshot)
    return str(raised.value)


def test_accelerator_that_fails_ends_the_walk(tmp_path: Path) -> None:
    """A failure in the middle is an error, never the end of the tree."""
    (tmp_path / "Library").mkdir()
    broken = mock.Mock()
    broken.walk.return_value.batch.return_value = None
    with opened(tmp_path) as base, mock.patch.object(walk_module, "native", broken):
        walk = TreeWalk(Tree(base, b"Library"))
        with pytest.raises(RuntimeError, match="PLEXODUS_NATIVE=0"):
            list(walk.lines())
