"""Manifests of any library, for the tests of what reads them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from rig.hostile.agent import entry, folder, hardlink, symlink
from shared.frames.plan import FRAME
from shared.tree.manifest import Entry, Kind
from shared.tree.member_path import sort_key

ROOT = b"Library"
_ODD = [b'quo"te', b"back\\slash", b"new\nline", b"return\r", b"latin-1 \xe9", b"\x01\x7f"]
_NAMES = [b"a", b"b", b"a.b", b"c ", "d\u00e9j\u00e0 vu".encode(), b"n" * 99, b"long " * 40]
_times = st.integers(0, 8**11 * 10**9 - 1)
_sizes = st.integers(0, 6 * FRAME) | st.sampled_from([0, 1, FRAME, FRAME + 1])
_ids = st.integers(0, 2) | st.just(8**7 - 1)
_targets = st.sampled_from([b"../a", b"../../..", b"a/../..", b"t" * 101, b"\xc3\xbc", b"/etc"])
_extremes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"uid": 8**7},
        {"gid": 2**32 - 2},
        {"mtime_ns": -1},
        {"mtime_ns": 8**11 * 10**9},
        {"mtime_ns": 2**63},
        {"mtime_ns": 1 - 2**64},
        {"ctime_ns": 2**70},
        {"inode": 2**64},
        {"xattrs": {"user.x": b"value"}},
    ]
)


@st.composite
def any_manifest(draw: st.DrawFn, *, odd: bool = True) -> list[Entry]:
    """Return entries that a scan may find, in order; ``odd`` ones are left to Python."""
    names = st.sampled_from(_NAMES * 4 + (_ODD if odd else []))
    folders = [ROOT]
    for _ in range(draw(st.integers(0, 4))):
        folders.append(draw(st.sampled_from(folders)) + b"/" + draw(names))
    found = {path: folder(path) for path in folders}
    for _ in range(draw(st.integers(0, 12))):
        path = draw(st.sampled_from(folders)) + b"/" + draw(names)
        if path not in found:
            found[path] = draw(_leaf(path, list(found.values()), odd=odd))
    paths = sorted(found, key=sort_key)
    return [draw(_with_attributes(found[path], odd=odd)) for path in paths]


def _leaf(path: bytes, others: list[Entry], *, odd: bool) -> st.SearchStrategy[Entry]:
    """Return an entry that is no folder; a hard link is to an earlier one of the ``others``."""
    usual = _sizes.map(lambda size: entry(path, size=size))
    sparse = _sizes.map(lambda size: entry(path, size=size, data=size // 2))
    kinds = [usual, usual, usual, sparse, _targets.map(lambda target: symlink(path, target))]
    files = [each.path for each in others if each.kind is Kind.FILE]
    earlier = [each for each in files if sort_key(each) < sort_key(path)]
    if odd:
        kinds.append(st.just(symlink(path, b"\xff")))
    if odd and earlier:
        kinds.append(st.just(hardlink(path, earlier[0])))
    return st.one_of(kinds)


@st.composite
def _with_attributes(draw: st.DrawFn, made: Entry, *, odd: bool) -> Entry:
    which = draw(st.integers(0, 12))
    if odd and which == 0:
        return msgspec.structs.replace(made, **draw(_extremes))
    if which > 4:
        return made
    changes = {"uid": draw(_ids), "gid": draw(_ids), "mtime_ns": draw(_times)}
    mode, kept = draw(st.sampled_from([0, 0o644, 0o7777])), draw(st.booleans())
    return msgspec.structs.replace(made, **changes, mode=mode, kept=kept)
