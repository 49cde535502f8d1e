"""The accelerator unpacks a frame exactly as Python does, or leaves it to Python."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder, frame_tags, frame_tars, hardlink
from rig.oracle import rsync_differences
from rig.two_sides import TwoSides
from rig.unprivileged import GROUP, USER

from initpuller.volume.fidelity import AttributePolicy
from initpuller.volume.filesystem import FOLDER
from initpuller.volume.ownership import Ownership
from initpuller.volume.staging import unpack
from initpuller.volume.staging.blocks import Unpacked
from initpuller.volume.staging.unpack import Destination, FetchedFrame, unpack_frame
from shared.errors import PlexodusError
from shared.frames.file_digests import FileDigests
from shared.frames.plan import FRAME
from shared.native import native
from shared.tree.manifest import Entry, Kind, format_line

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(native is None, reason="without the accelerator")

_IS_ROOT = os.geteuid() == 0
_MINE = Ownership((USER, GROUP), privileged=False)
OWNERSHIPS = [
    _MINE,
    *([Ownership(None, privileged=True), Ownership((1234, 5678), privileged=True)] * _IS_ROOT),
]
_NAMES = ["", "", "", "n" * 90, "n" * 230, "é", " ", "\n"]
_CONTENTS = [b"", b"x", b"y" * 511, b"z" * 5000, bytes(9000), b"a" + bytes(8191) + b"b" * 4096]
_LEFTOVERS = ["file", "symlink", "same symlink", "folder", "closed folder", "read-only file"]


@dataclass(frozen=True)
class Tree:
    """Entries in order, contents by path, and what an earlier run left in their places."""

    entries: list[Entry]
    contents: dict[bytes, bytes]
    leftovers: dict[bytes, str]

    def frames(self) -> list[FetchedFrame]:
        """Return all frames as they arrive."""
        tars = frame_tars(self.entries, self.contents)
        tags = frame_tags(self.entries, self.contents)
        found = []
        for frame, tar, tag in zip(plan(self.entries), tars, tags, strict=True):
            inside = self.entries[frame.first : frame.first + frame.count]
            lines = [format_line(each).rstrip() for each in inside]
            found.append(FetchedFrame(frame, lines, tar, tag))
        return found


@st.composite
def trees(draw: st.DrawFn, *, is_odd: bool = True) -> Tree:
    """Return trees of a few folders with every kind of entry; if ``is_odd``, also for Python."""
    top = folder(b"Library")
    entries, contents, leftovers = [top], {}, {}
    open_folders, files = [top.path], [b"Library"]
    for number, kind in enumerate(draw(st.lists(st.sampled_from("FFFFSsddh"), max_size=12))):
        del open_folders[draw(st.integers(1, len(open_folders))) :]
        suffix = draw(st.sampled_from(_NAMES))
        path = open_folders[-1] + f"/{number:03}{suffix}".encode()
        changes: dict[str, Any] = {
            "mode": draw(st.sampled_from([0o644, 0o755, 0o400, 0o555, 0o6711, 0o1777, 0])),
            "mtime_ns": draw(st.integers(-1_000_000_000_000_000_001, 1_700_000_000_999_999_999)),
            "kept": kind != "d" and draw(st.integers(0, 9)) == 0,
        }
        if _IS_ROOT:
            changes |= {"uid": draw(st.integers(0, 9)), "gid": draw(st.integers(0, 9))}
        if is_odd and kind in "Fd" and draw(st.integers(0, 9)) == 0:
            changes["xattrs"] = {"user.plex": b"value"}
        if kind == "h":
            made = hardlink(path, draw(st.sampled_from(files)))
        elif kind == "s":
            changes["mode"] = 0o777
            made = entry(path, Kind.SYMLINK, link=b"elsewhere", **changes)
        elif kind == "d":
            made = entry(path, Kind.DIRECTORY, **changes)
            open_folders.append(path)
        else:
            content = draw(st.sampled_from(_CONTENTS))
            if kind == "S":
                content += bytes(FRAME) * draw(st.sampled_from([0, 0, 0, 1]))
                changes["data"] = len(content) // 2
            made = entry(path, size=len(content), **changes)
            contents[path] = content
            files.append(path)
        if is_odd and draw(st.integers(0, 9)) == 0:
            leftovers[path] = draw(st.sampled_from(_LEFTOVERS))
        entries.append(made)
    return Tree(entries, contents, leftovers)


def leave(top: Path, tree: Tree) -> None:
    """Make what an earlier run left; it has nothing below a leftover."""
    for path, what in tree.leftovers.items():
        place = top / os.fsdecode(path)
        if not all(above.is_dir() and not above.is_symlink() for above in place.parents):
            try:
                place.parent.mkdir(parents=True)
            except OSError:
                continue
        is_closed = not os.access(place.parent, os.W_OK | os.X_OK, effective_ids=True)
        if is_closed or os.path.lexists(place):
            continue
        if what in ("file", "read-only file"):
            place.write_bytes(b"left" * 5000)
            place.chmod(0o600 if what == "file" else 0o400)
        elif "symlink" in what:
            place.symlink_to("elsewhere" if what == "same symlink" else "..")
        else:
            place.mkdir()
            place.chmod(0o700 if what == "folder" else 0o555)


@contextmanager
def identity(ownership: Ownership) -> Iterator[None]:
    """Become a user without privileges, if the ownership is of one."""
    is_changed = _IS_ROOT and not ownership.privileged
    if is_changed:
        os.setegid(GROUP)
        os.seteuid(USER)
    try:
        yield
    finally:
        if is_changed:
            os.seteuid(0)
            os.setegid(0)


@contextmanager
def destination(place: Path, ownership: Ownership, entries: int) -> Iterator[Destination]:
    """Make the folder ``place`` with an empty staging folder, and yield that."""
    staging = place / "staging"
    staging.mkdir(parents=True)
    fd = os.open(staging, FOLDER)
    try:
        digests = FileDigests(str(place / "digests"), entries)
        yield Destination(fd, AttributePolicy(ownership), digests)
    finally:
        os.close(fd)


def results(
    place: Path, tree: Tree, ownership: Ownership
) -> tuple[list[Unpacked | tuple[Any, ...]], list[bytes | None]]:
    """Unpack all frames below ``place``; return results or failures, and the digests stored."""
    found: list[Unpacked | tuple[Any, ...]] = []
    with identity(ownership), destination(place, ownership, len(tree.entries)) as into:
        leave(place / "staging", tree)
        for fetched in tree.frames():
            try:
                found.append(unpack_frame(into, fetched))
            except PlexodusError as error:
                found.append((type(error), error.args))
        return found, list(into.digests)


def contents(top: Path, since: int) -> dict[str, object]:
    """Return everything below ``top``; times after ``since`` are those of unfinished entries."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        held: object = None
        if stat.S_ISREG(info.st_mode):
            xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
            held = path.read_bytes(), info.st_blocks, xattrs
        elif stat.S_ISLNK(info.st_mode):
            held = os.readlink(path)
        time_ns = min(info.st_mtime_ns, since)
        about = (info.st_mode, info.st_uid, info.st_gid, time_ns, info.st_nlink)
        found[str(path.relative_to(top))] = (about, held)
    return found


@contextmanager
def open_place() -> Iterator[Path]:
    """Make a folder that any user can write into."""
    with TemporaryDirectory(prefix="plexodus-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.parametrize("ownership", OWNERSHIPS, ids=str)
@settings(max_examples=40)
@given(tree=trees())
def test_same_tree_with_and_without_the_accelerator(ownership: Ownership, tree: Tree) -> None:
    """Files, attributes, digests, late entries and failures are those of Python alone.

    That is also so where the accelerator gives up in the middle, after it made read-only files and
    folders.
    """
    since = time.time_ns() - 10**9
    with open_place() as place:
        with patch.object(unpack, "native", None):
            expected = results(place / "python", tree, ownership)
        assert results(place / "native", tree, ownership) == expected
        made = contents(place / "native" / "staging", since)
        assert made == contents(place / "python" / "staging", since)


@settings(max_examples=40)
@given(tree=trees(is_odd=False))
def test_usual_frames_need_no_python(tree: Tree) -> None:
    """Without anything unusual, every entry is as the manifest says, and Python does nothing."""
    ownership = OWNERSHIPS[-1]
    with open_place() as place, patch.object(unpack, "_unpack_any", side_effect=AssertionError):
        unpacked, stored = results(place, tree, ownership)
        frames = [each for each in unpacked if isinstance(each, Unpacked)]
        assert len(frames) == len(unpacked)
        late = {each.path for frame in frames for _, each in frame.late}
        for each, digest in zip(tree.entries, stored, strict=True):
            path = place / "staging" / os.fsdecode(each.path)
            if each.kept or each.path in late:
                continue
            info = path.lstat()
            assert (info.st_uid, info.st_gid) == ownership.of(each)
            assert info.st_mtime_ns == each.mtime_ns
            if each.kind is Kind.DIRECTORY:
                assert stat.S_IMODE(info.st_mode) == ownership.mode_of(each)
            else:
                assert stat.S_IMODE(info.st_mode) == each.mode
            if each.kind is Kind.FILE:
                assert path.read_bytes() == tree.contents[each.path]
                assert digest == hashlib.sha256(tree.contents[each.path]).digest()


@settings(max_examples=150)
@given(tree=trees(is_odd=False), data=st.data())
def test_mutated_frames(tree: Tree, data: st.DataObject) -> None:
    """A forged frame changes nothing outside staging, and is unpacked as by Python, or refused."""
    frame = data.draw(st.sampled_from(tree.frames()))
    text, tar, tag = b"\n".join(frame.lines), frame.tar, bytes.fromhex(frame.tag)
    forged = [text, tar, tag]
    which = data.draw(st.sampled_from([0, 0, 0, 1, 2]))
    forged[which] = data.draw(mutations(forged[which]))
    ownership = OWNERSHIPS[-1]
    policy = ownership.fixed, ownership.privileged
    since = time.time_ns() - 10**9
    with open_place() as place, destination(place / "native", ownership, 99) as into:
        (place / "native" / "outside").write_bytes(b"precious")
        block = data.draw(st.sampled_from([frame.frame.block, frame.frame.block, 1, 2**63]))
        assert native is not None
        done = native.unpack(into.staging, forged[0] + b"\n", block, forged[1], forged[2], policy)
        assert sorted(os.listdir(place)) == ["native"]
        assert sorted(os.listdir(place / "native")) == ["digests", "outside", "staging"]
        assert (place / "native" / "outside").read_bytes() == b"precious"
        if done is None:
            return
        assert block == frame.frame.block
        again = FetchedFrame(frame.frame, forged[0].split(b"\n"), forged[1], forged[2].hex())
        with destination(place / "python", ownership, 99) as other:
            with patch.object(unpack, "native", None):
                expected = unpack_frame(other, again)
            assert expected.differences == []
            positions = [number - frame.frame.first for number, _ in expected.late]
            assert done[1] == positions
        made = contents(place / "native" / "staging", since)
        assert made == contents(place / "python" / "staging", since)


def mutations(sound: bytes) -> st.SearchStrategy[bytes]:
    """Return strategies for damaged bytes: changed, cut, repeated, or with hostile names."""
    place = st.integers(0, len(sound))
    names = [b"../outside", b"/etc", b"..", b".", b"", b"\0", b"\xff", b"Library/../..", b"//"]
    paths = st.sampled_from([b"Library", b"/000", b"/001", b"elsewhere", b'"file"', b'"dir"', b"0"])
    lines = sound.split(b"\n")
    return st.one_of(
        st.builds(lambda at, byte: sound[:at] + byte + sound[at + 1 :], place, st.binary()),
        st.builds(lambda at: sound[:at], place),
        st.builds(lambda at: sound + sound[at:], place),
        st.builds(lambda old, new: sound.replace(old, new, 1), paths, st.sampled_from(names)),
        st.builds(sound.replace, paths, paths),
        st.permutations(lines).map(b"\n".join),
        st.sampled_from([b"\n".join(part) for part in accumulate([line] for line in lines)]),
        st.just(b"\n".join(line[:1] + b'"xattrs":{},' + line[1:] for line in lines)),
        st.just(b'["Library","dir",493,0,0,0,0,1]'),
        st.just(sound.replace(b'"file"', b'{"file":null}')),
    )


def test_usual_library_is_assembled_by_the_accelerator_alone(tmp_path: Path) -> None:
    """For rsync, a library of usual entries is the same on the volume; Python unpacks no frame."""
    library = tmp_path / "Library"
    (library / "folder" / "below").mkdir(parents=True)
    for number in range(50):
        (library / "folder" / f"{number}").write_bytes(os.urandom(1000 * number))
    (library / "folder" / "below" / "readonly").write_bytes(b"readonly")
    (library / "folder" / "below" / "readonly").chmod(0o400)
    with (library / "folder" / "sparse").open("wb") as file:
        file.truncate(2 * FRAME)
        file.seek(FRAME + 5000)
        file.write(b"in the middle")
    (library / "folder" / "link").symlink_to("elsewhere")
    (library / "folder" / "zhard").hardlink_to(library / "folder" / "0")
    (library / "large").write_bytes(os.urandom(2 * FRAME + 17))
    os.utime(library / "folder" / "below", ns=(1, 1_234_567_890_123_456_789))
    sides = TwoSides(tmp_path / "sides", library)
    with patch.object(unpack, "_unpack_any", side_effect=AssertionError):
        sides.bring(sides.scan()).close()
    assert rsync_differences(library, sides.staged) == []
    assert (sides.staged / "folder" / "sparse").stat().st_blocks * 512 < 1 << 19
