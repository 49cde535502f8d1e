"""The accelerator's lines of ``SHA256SUMS`` are those of Python, and it accepts no others."""

from __future__ import annotations

import hashlib
import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.any_manifest import ROOT, any_manifest
from rig.damage import damaged

from initpuller.volume.publish.verify import wrong_sums
from shared.errors import IntegrityError
from shared.frames import sha256sums
from shared.frames.file_digests import FileDigests, split
from shared.frames.manifest_file import write_manifest
from shared.frames.pieces import PIECE, piece_digests
from shared.frames.plan import FRAME
from shared.frames.sha256sums import format_sums
from shared.native import native
from shared.tree import line_file
from shared.tree.manifest import Entry, Kind, format_line, spell

if TYPE_CHECKING:
    from shared.frames.manifest_file import ManifestFile

if native is None:
    pytest.skip("the accelerator is not installed", allow_module_level=True)


@st.composite
def _trees(draw: st.DrawFn) -> tuple[list[Entry], bytes]:
    """Return entries, and their digests: zeros for folders, for links, and seldom for a file."""
    tree, digests = draw(any_manifest()), b""
    for each in tree:
        is_known = each.kind is Kind.FILE and draw(st.integers(0, 20)) > 0
        digests += hashlib.sha256(each.path).digest() if is_known else bytes(32)
    return tree, digests


def _is_odd(entry: Entry, digest: bytes | None) -> bool:
    is_file = entry.kind is Kind.FILE
    needs_escape = is_file and any(each in entry.path for each in b"\\\n\r")
    has_bytes = any(spell(name)[1] for name in (entry.path, entry.link))
    is_extreme = bool(entry.xattrs) or abs(entry.mtime_ns) >= 2**63
    is_extreme = is_extreme or entry.inode >= 2**64 or entry.ctime_ns >= 2**63
    return needs_escape or has_bytes or is_extreme or (is_file and digest is None)


def _in_python(lines: bytes, digests: bytes) -> bytes:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sha256sums, "native", None)
        return format_sums(lines, digests)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, FRAME - 1, FRAME])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_pieces_of_a_block(size: int, form: type) -> None:
    """Wrong digests of pieces would leave a part of a database as an earlier pass copied it."""
    content = hashlib.shake_256(b"a block").digest(size)
    pieces = [content[start : start + PIECE] for start in range(0, size, PIECE)]
    expected = [hashlib.sha256(piece).digest() for piece in pieces]
    assert piece_digests(form(content)) == expected
    assert native is not None
    assert native.pieces(content) == expected


@given(_trees())
def test_sums_of_any_tree(made: tuple[list[Entry], bytes]) -> None:
    """The lines equal those of Python; only odd entries are left to it."""
    assert native is not None
    tree, digests = made
    lines = b"".join(map(format_line, tree))
    ours = native.sums(lines, digests)

    assert format_sums(lines, digests) == _in_python(lines, digests)
    if not any(map(_is_odd, tree, split(digests))):
        assert ours == _in_python(lines, digests)


@settings(max_examples=150)
@given(_trees(), st.data())
def test_sums_of_damaged_lines(made: tuple[list[Entry], bytes], data: st.DataObject) -> None:
    """Damaged lines are left to Python, or have the lines that it finds."""
    assert native is not None
    tree, digests = made
    lines = data.draw(damaged(b"".join(map(format_line, tree))))
    digests = digests[: data.draw(st.sampled_from([None, None, -32, -1]))]
    ours = native.sums(lines, digests)
    if ours is not None:
        assert ours == _in_python(lines, digests)


@settings(max_examples=100)
@given(_trees(), st.data())
def test_sums_of_the_agent_that_are_wrong(
    made: tuple[list[Entry], bytes], data: st.DataObject
) -> None:
    """The same files are found wrong, or the same error is raised, with and without it."""
    tree, digests = made
    lines = b"".join(map(format_line, tree))
    theirs = format_sums(lines, data.draw(st.just(digests) | _with_another_byte(digests)))
    text = data.draw(st.just(theirs) | damaged(theirs) | _lines_moved(theirs))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(line_file, "PIECE", data.draw(st.integers(1, 1500)))
        manifest = write_manifest(os.path.join(folder, "manifest"), ROOT, tree)
        mine = FileDigests(os.path.join(folder, "digests"), len(tree))
        mine.put(enumerate(split(digests)))
        path = os.path.join(folder, "sums")
        with open(path, "wb") as file:
            file.write(text)
        found = _outcome(manifest, mine, path)
        patched.setattr(sha256sums, "native", None)
        assert found == _outcome(manifest, mine, path)


def _with_another_byte(digests: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(digests) - 1)
    return places.map(lambda place: digests[:place] + b"\x01" + digests[place + 1 :])


def _lines_moved(text: bytes) -> st.SearchStrategy[bytes]:
    lines = text.splitlines(keepends=True)
    return st.lists(st.sampled_from([*lines, b"# comment\n"]), max_size=len(lines) + 1).map(
        b"".join
    )


def _outcome(
    manifest: ManifestFile, mine: FileDigests, path: str
) -> list[tuple[int, Entry]] | tuple[type[IntegrityError], str]:
    try:
        return list(wrong_sums(manifest, mine, path))
    except IntegrityError as error:
        return type(error), str(error)
