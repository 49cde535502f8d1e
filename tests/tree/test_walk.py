"""The walk of a tree: what counts as content, and what is seen without opening anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from shared.tree.manifest import Entry, Kind
from shared.tree.walk import Tree, TreeWalk, WalkOptions

if TYPE_CHECKING:
    from pathlib import Path


def walked(tree: Path, *, inside: bool = True) -> tuple[list[Entry], list[str]]:
    """Return all entries of ``tree``, and what could not be read."""
    base = os.open(tree.parent, os.O_RDONLY)
    try:
        walk = TreeWalk(Tree(base, os.fsencode(tree.name)), WalkOptions(inside=inside))
        return list(walk.entries()), walk.unreadable
    finally:
        os.close(base)


@pytest.mark.parametrize("kind", ["file", "symlink", "nothing"])
def test_library_that_is_no_folder_any_more(tmp_path: Path, kind: str) -> None:
    """A file or link in place of the library is no empty library."""
    tree = tmp_path / "Library"
    if kind == "file":
        tree.write_bytes(b"")
    elif kind == "symlink":
        tree.symlink_to(tmp_path)
    entries, unreadable = walked(tree)
    assert entries == []
    assert [line.partition(" ")[0] for line in unreadable] == ["Library"]


def test_seen_from_outside(library: Path) -> None:
    """The entries are the same with the same times, except symlink targets, holes and xattrs."""
    sparse = library / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 20)
    os.setxattr(library / "large", "user.x", b"y")
    inside, outside = walked(library)[0], walked(library, inside=False)[0]

    def from_outside(entry: Entry) -> Entry:
        link = b"" if entry.kind is Kind.SYMLINK else entry.link
        return msgspec.structs.replace(entry, link=link, data=None, xattrs={})

    assert [from_outside(entry) for entry in inside] == outside
    assert inside != outside
    assert {entry.kind for entry in outside} == set(Kind)


@pytest.mark.parametrize("live", [False, True])
def test_entry_that_disappears_during_the_walk(tmp_path: Path, live: bool) -> None:  # noqa: FBT001
    """It is no entry that cannot be read: to give read access to it would not help."""
    tree = tmp_path / "Library"
    (tree / "written").mkdir(parents=True)
    for name in ("a", "b"):
        (tree / "written" / name).touch()
    base = os.open(tmp_path, os.O_RDONLY)
    try:
        walk = TreeWalk(Tree(base, b"Library"), WalkOptions(live=live))
        for entry in walk.entries():
            if entry.path.endswith(b"/a"):
                (tree / "written" / "b").unlink()
    finally:
        os.close(base)
    assert walk.unreadable == []
    assert walk.gone == ([] if live else ["Library/written/b"])
