"""Manifest lines are read back as written, and what no library has is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder, hardlink, symlink

from shared.errors import (
    EntriesOutOfOrder,
    IllegalLink,
    IllegalPath,
    IntegrityError,
    ManifestMalformed,
    ManifestTooLarge,
    ParentNotDirectory,
)
from shared.frames.manifest_file import read_manifest, write_manifest
from shared.tree.line_file import PIECE
from shared.tree.manifest import MAX_LINE, MAX_TIME, Entry, Kind, checked, format_line, parse_line
from shared.tree.member_path import sort_key

if TYPE_CHECKING:
    from pathlib import Path

    from shared.frames.manifest_file import ManifestFile

_bytes = st.binary(min_size=1, max_size=60)
_names = st.one_of(_bytes, st.text(min_size=1, max_size=30).map(lambda text: text.encode()))
_ids = st.integers(0, 2**32 - 2)
_times = st.integers(-MAX_TIME, MAX_TIME)


@st.composite
def any_entry(draw: st.DrawFn) -> Entry:
    """Return any entry at all, with legal or illegal names."""
    kind = draw(st.sampled_from(Kind))
    size = draw(st.integers(0, 2**62 - 1)) if kind is Kind.FILE else 0
    return Entry(
        path=draw(_names),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(_ids),
        gid=draw(_ids),
        mtime_ns=draw(_times),
        ctime_ns=draw(_times),
        inode=draw(st.integers(0, 2**64 - 1)),
        size=size,
        data=draw(st.none() | st.integers(0, size)) if kind is Kind.FILE else None,
        link=draw(st.one_of(st.just(b""), _names)),
        xattrs=draw(st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=3)),
    )


@given(any_entry())
def test_line_is_read_back(made: Entry) -> None:
    """Any entry becomes one line of plain JSON, and is read back from it."""
    line = format_line(made)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line)["kind"] == made.kind.value
    assert parse_line(line) == made
    assert format_line(parse_line(line)) == line


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_garbage_for_a_line(garbage: bytes) -> None:
    """Garbage raises an error of ours."""
    with pytest.raises(IntegrityError):
        parse_line(garbage)


@given(any_entry(), st.data())
def test_cut_line(made: Entry, data: st.DataObject) -> None:
    """No part of a line is read as an entry."""
    line = format_line(made)
    cut = line[: data.draw(st.integers(0, len(line) - 2))]
    with pytest.raises(IntegrityError):
        parse_line(cut)


GOOD = json.loads(format_line(entry(b"Library/file", size=10)))
BAD: dict[str, dict[str, object]] = {
    "mode_of_five_digits": {"mode": 0o10000},
    "negative_mode": {"mode": -1},
    "uid_that_means_nobody": {"uid": 2**32 - 1},
    "negative_gid": {"gid": -1},
    "size_over_all": {"size": 2**62},
    "more_data_than_size": {"data": 11},
    "negative_data": {"data": -1},
    "time_before_all": {"mtime_ns": -(2**64)},
    "time_with_a_fraction": {"mtime_ns": 1.5},
    "negative_inode": {"inode": -1},
    "fifo": {"kind": "fifo"},
    "unknown_field": {"device": 7},
    "path_not_a_string": {"path": 7},
    "path_not_base64": {"path_b64": "%%"},
    "xattr_not_base64": {"xattrs": {"user.a": "%%"}},
    "size_on_a_symlink": {"kind": "symlink"},
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD.keys())
def test_line_with_an_impossible_value(wrong: dict[str, object]) -> None:
    """A line with an impossible value is refused."""
    assert parse_line(json.dumps(GOOD).encode()).size == 10
    with pytest.raises(ManifestMalformed):
        parse_line(json.dumps(GOOD | wrong).encode())


def test_line_too_long() -> None:
    """A line over the limit is refused before it is parsed."""
    with pytest.raises(ManifestTooLarge):
        parse_line(b"[" * (MAX_LINE + 1))


TOP = folder(b"Library")
FILE = entry(b"Library/b")
REFUSED = {
    "nothing": ([], ManifestMalformed),
    "root_twice": ([TOP, TOP], EntriesOutOfOrder),
    "root_is_a_symlink": ([symlink(b"Library", b"x")], ManifestMalformed),
    "begins_below_the_root": ([folder(b"Library/a")], ManifestMalformed),
    "root_with_xattr_of_the_system": (
        [msgspec.structs.replace(TOP, xattrs={"system.posix_acl_access": b""})],
        ManifestMalformed,
    ),
    "parent_after_child": ([TOP, entry(b"Library/a/b"), folder(b"Library/a")], ParentNotDirectory),
    "below_a_hard_link": (
        [TOP, FILE, hardlink(b"Library/c", b"Library/b"), entry(b"Library/c/d")],
        ParentNotDirectory,
    ),
    "sorted_by_bytes_not_by_names": (
        [TOP, folder(b"Library/a"), folder(b"Library/a.d"), entry(b"Library/a/b")],
        EntriesOutOfOrder,
    ),
    "hard_link_without_target": ([TOP, entry(b"Library/c", Kind.HARDLINK)], IllegalPath),
    "hard_link_to_another_root": ([TOP, hardlink(b"Library/c", b"Other/b")], IllegalPath),
    "target_on_a_folder": ([entry(b"Library", Kind.DIRECTORY, link=b"x")], IllegalLink),
}


@pytest.mark.parametrize(("entries", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_entries_refused(entries: list[Entry], kind: type[IntegrityError]) -> None:
    """Illegal entries are refused with the reason, and with the path if there is one."""
    with pytest.raises(IntegrityError) as caught:
        list(checked(entries, b"Library"))
    assert type(caught.value) is kind
    assert caught.value.path is not None or not entries


_components = st.binary(min_size=1, max_size=8).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)
_folders = st.lists(st.lists(_components, min_size=1, max_size=4), max_size=20)


@given(_folders)
def test_every_sorted_tree_is_taken(paths: list[list[bytes]]) -> None:
    """Any sorted tree with all its parents is accepted, whatever its names."""
    parts = {b"/".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
    tree = [TOP, *(folder(b"Library/" + part) for part in sorted(parts, key=sort_key))]
    assert list(checked(tree, b"Library")) == tree


@settings(max_examples=20)
@given(st.integers(0, 3000), st.integers(0, 50))
def test_any_entries_from_the_middle(manifest_of_many: ManifestFile, first: int, n: int) -> None:
    """Entries are found in any pieces, also across two."""
    whole = list(manifest_of_many)
    wanted = whole[first : first + n]
    assert manifest_of_many.entries(first, len(wanted)) == wanted


@settings(max_examples=50)
@given(st.integers(0, 3051), st.sampled_from([b"", b"x", b"/below"]))
def test_entry_is_found_by_its_path(
    manifest_of_many: ManifestFile, number: int, behind: bytes
) -> None:
    """The entry at a path is found in any piece, and nothing at a path that does not exist."""
    entries = list(manifest_of_many)
    path = entries[number].path + behind
    wanted = next((entry for entry in entries if entry.path == path), None)
    assert manifest_of_many.find(path) == wanted
    assert manifest_of_many.find(b"Aardvark") is None


@pytest.fixture(scope="module")
def manifest_of_many(tmp_path_factory: pytest.TempPathFactory) -> ManifestFile:
    """3,052 entries in three pieces, which are one zstd file for everybody."""
    path = tmp_path_factory.mktemp("manifest") / "m"
    files = [
        entry(b"Library/%05d" % number, xattrs={"user.x": bytes(40)}) for number in range(3051)
    ]
    name = write_manifest(str(path), b"Library", [TOP, *files]).name
    text = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    assert hashlib.sha256(text).hexdigest() == name
    assert len(text) > 2 * PIECE
    manifest = read_manifest(str(path), name, b"Library")
    assert list(manifest.plan) == list(plan([TOP, *files]))
    assert list(manifest) == [TOP, *files]
    assert list(reversed(manifest)) == [*reversed(files), TOP]
    return manifest


def test_damaged_byte_anywhere(tmp_path: Path) -> None:
    """Any single damaged byte of a manifest is noticed."""
    path = tmp_path / "m"
    name = write_manifest(str(path), b"Library", [TOP, FILE]).name
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        path.write_bytes(bad)
        with pytest.raises(IntegrityError):
            read_manifest(str(path), name, b"Library")
