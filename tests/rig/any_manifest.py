"""Manifests of any library, for the tests of what reads them: mostly usual entries, some odd."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from rig.hostile.agent import entry, folder, hardlink, symlink
from shared.frames.plan import FRAME
from shared.tree.manifest import Entry, Kind
from shared.tree.member_path import sort_key

ROOT = b"Library"
_ODD = [b'quo"te', b"back\\slash", b"new\nline", b"return\r", b"latin-1 \xe9", b"\x01\x7f"]
_USUAL = [b"a", b"b", b"a.b", "d\u00e9j\u00e0 vu".encode(), b"n" * 99, b"long " * 40]
_names = st.sampled_from([*_USUAL * 4, *_ODD])
_times = st.integers(0, 2**33 * 10**9) | st.sampled_from([-1, 8**11 * 10**9, 2**63, 2**64 - 1])
_sizes = st.integers(0, 6 * FRAME) | st.sampled_from([0, 1, FRAME, FRAME + 1, 8**11])
_ids = st.integers(0, 2000) | st.sampled_from([8**7 - 1, 8**7, 2**32 - 2])
_targets = st.sampled_from([b"../a", b"t" * 101, b"\xc3\xbc", b"\xff", b"/etc"])


@st.composite
def any_manifest(draw: st.DrawFn) -> list[Entry]:
    """Return entries that a scan may find, in order."""
    folders = [ROOT]
    for _ in range(draw(st.integers(0, 4))):
        folders.append(draw(st.sampled_from(folders)) + b"/" + draw(_names))
    found = {path: folder(path) for path in folders}
    files: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        path = draw(st.sampled_from(folders)) + b"/" + draw(_names)
        if path not in found:
            found[path] = draw(_leaf(path, files))
            if found[path].kind is Kind.FILE:
                files.append(path)
    return [draw(_with_attributes(found[path])) for path in sorted(found, key=sort_key)]


def _leaf(path: bytes, files: list[bytes]) -> st.SearchStrategy[Entry]:
    """Return an entry that is no folder; hard links are to one of ``files``."""
    earlier = [each for each in files if sort_key(each) < sort_key(path)]
    sparse = _sizes.map(lambda size: entry(path, size=size, data=size // 2))
    xattrs = st.just(entry(path, xattrs={"user.x": b"value"}))
    usual = _sizes.map(lambda size: entry(path, size=size))
    links = [hardlink(path, each) for each in earlier[:2]]
    rare = sparse | xattrs | st.sampled_from(links) if links else sparse | xattrs
    symlinks = _targets.map(lambda target: symlink(path, target))
    return st.one_of(usual, usual, usual, symlinks, rare)


@st.composite
def _with_attributes(draw: st.DrawFn, made: Entry) -> Entry:
    if draw(st.integers(0, 3)):
        return made
    changes = {"uid": draw(_ids), "gid": draw(_ids), "mtime_ns": draw(_times)}
    return msgspec.structs.replace(made, **changes, kept=draw(st.booleans()))
