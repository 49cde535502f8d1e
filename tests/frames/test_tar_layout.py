"""GNU tar and Python's tarfile read the tar headers as they were meant."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.hostile.agent import entry, folder, frame_tars, hardlink, symlink

from shared.frames.plan import FRAME
from shared.frames.tar_layout import BLOCK, END_OF_ARCHIVE, header, header_size
from shared.tree.manifest import Entry, Kind
from shared.tree.member_path import sort_key

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 10**9
_TYPES = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FILE: tarfile.REGTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
}
_letters = st.sampled_from([b"a", b"b/", "é".encode(), b"\n", b"=", b" ", b"\xff", b"\xe9", b"0"])
_component = st.one_of(
    st.lists(_letters, min_size=1, max_size=120).map(b"".join),
    st.integers(1, 255).map(lambda length: b"n" * length),
).map(lambda name: name.strip(b"/") or b"n")
_paths = st.lists(_component, min_size=1, max_size=4).map(lambda names: b"/".join([b"L", *names]))
_edges = [0, 1, 8**7 - 1, 8**7, 2**32 - 2]
_sizes = [0, 1, 511, 512, 8**11 - 1, 8**11, 2**40, 2**62 - 1]
_seconds = [-(2**33), -1, 0, 1, 2**31, 2**33 - 1, 2**33, 2**34]
_xattrs = st.dictionaries(
    st.text("ab=%é. ", min_size=1, max_size=20).map("user.".__add__),
    st.binary(max_size=120),
    max_size=2,
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Return entries on both sides of each limit of a ustar header."""
    kind = draw(st.sampled_from(Kind))
    return entry(
        draw(_paths),
        kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.sampled_from(_edges)),
        gid=draw(st.sampled_from(_edges)),
        mtime_ns=draw(st.sampled_from(_seconds)) * SECOND + draw(st.integers(0, SECOND - 1)),
        size=draw(st.sampled_from(_sizes)) if kind is Kind.FILE else 0,
        link=draw(_paths) if kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        xattrs=draw(_xattrs) if kind in (Kind.FILE, Kind.DIRECTORY) else {},
    )


def read_by_tarfile(blocks: bytes) -> tarfile.TarInfo:
    """Return the one member that Python's tarfile finds."""
    archive = tarfile.open(  # noqa: SIM115 - nothing to close
        fileobj=io.BytesIO(blocks), encoding="utf-8", errors="surrogateescape"
    )
    found = archive.next()
    assert found is not None
    return found


@settings(max_examples=300)
@given(entries())
def test_header_is_read_back_by_tarfile(made: Entry) -> None:
    """Name, kind, mode, owner, size, seconds, link and xattrs are read back."""
    blocks = header(made)
    found = read_by_tarfile(blocks)

    assert len(blocks) % BLOCK == 0
    assert os.fsencode(found.name) == made.path
    assert os.fsencode(found.linkname) == made.link
    assert found.type == _TYPES[made.kind]
    assert (found.mode, found.uid, found.gid) == (made.mode, made.uid, made.gid)
    assert (found.size, found.mtime) == (made.size, made.mtime_ns // SECOND)
    assert found.offset_data == len(blocks)
    xattrs = {
        key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
        for key, value in found.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    }
    assert xattrs == {
        key.replace("%", "%25").replace("=", "%3D"): value for key, value in made.xattrs.items()
    }


@settings(max_examples=300)
@given(entries())
def test_header_size_is_that_of_the_header(made: Entry) -> None:
    """The computed size of a header is always its real size."""
    assert header_size(made) == len(header(made))


@given(st.integers(1, 3000))
def test_pax_record_counts_its_own_digits(length: int) -> None:
    """The length is right wherever it gets another digit."""
    found = read_by_tarfile(header(entry(b"L/f", xattrs={"user.x": b"v" * length})))
    assert found.pax_headers["SCHILY.xattr.user.x"] == "v" * length


@pytest.mark.parametrize(
    "plain",
    [
        entry(b"L/" + b"n" * 97),
        entry(b"L/" + b"n" * 98),
        entry(b"d" * 155 + b"/" + b"n" * 100),
        symlink(b"L/a", b"t" * 100),
        entry(b"L/a", uid=8**7 - 1, size=8**11 - 1, mtime_ns=(8**11 - 1) * SECOND),
    ],
    ids=["99_bytes", "100_bytes", "split", "link_of_100", "largest_numbers"],
)
def test_plain_ustar_is_used_where_possible(plain: Entry) -> None:
    """No pax record is written where ustar is enough, up to the last byte."""
    assert len(header(plain)) == BLOCK
    assert read_by_tarfile(header(plain)).name == os.fsdecode(plain.path)


@pytest.mark.parametrize(
    ("size", "shown"), [(8 * 1024**3, "8589934592"), (2**62 - 1, "4611686018427387903")]
)
def test_file_past_8_gib_for_gnu_tar(size: int, shown: str) -> None:
    """GNU tar lists the size of a file over 8 GiB."""
    done = subprocess.run(
        ["tar", "-tvf", "-"],
        input=header(entry(b"L/large", size=size, uid=0, gid=0)),
        check=False,  # the content is missing
        capture_output=True,
    )
    assert shown.encode() in done.stdout
    assert done.stdout.rstrip().endswith(b"L/large")


ODD_CONTENT = {
    b"L/" + b"n" * 255: b"long",
    b"L/caf\xe9\xff": b"not UTF-8",
    "L/déjà vu".encode(): b"not ASCII",
    b"L/new\nline": b"x" * 511,
    b"L/-dash": b"x" * 512,
    b"L/large": bytes(range(256)) * (FRAME // 256) + b"tail",
    b"L/" + b"/".join([b"d" * 200] * 4) + b"/f": b"x" * 513,
}


def odd_tree() -> list[Entry]:
    """Return everything that needs a pax record, in an order that tar can extract."""
    names = b"L/" + b"/".join([b"d" * 200] * 4)
    parents = [folder(names[: 2 + 201 * depth + 200]) for depth in range(4)]
    xattrs = {"user.a=b%3Dc": b"v\n=1", "user.empty": b"", "user.h\xe4": b"\0"}
    files = [entry(path, size=len(content)) for path, content in ODD_CONTENT.items()]
    owned = entry(b"L/owned")
    if os.geteuid() == 0:
        owned = entry(b"L/owned", uid=2**21 + 5, gid=2**32 - 2)
    tree = [
        folder(b"L"),
        *parents,
        *files,
        entry(b"L/before 1970", mtime_ns=-1234 * SECOND),
        entry(b"L/after 2242", mtime_ns=(2**33 + 7) * SECOND, mode=0o4755),
        owned,
        entry(b"L/xattrs", xattrs=xattrs),
        symlink(b"L/symlink", b"t/" * 700),
        symlink(b"L/symlink not UTF-8", b"\xff" * 50),
        hardlink(b"L/zz hard", b"L/" + b"n" * 255),
        hardlink(b"L/zz hard not UTF-8", b"L/caf\xe9\xff"),
    ]
    return sorted(tree, key=lambda each: sort_key(each.path))


def test_archive_of_all_frames_for_gnu_tar(tmp_path: Path) -> None:
    """GNU tar extracts the joined frames to the same tree."""
    tree = odd_tree()
    archive = b"".join(frame_tars(tree, ODD_CONTENT))
    assert archive.endswith(END_OF_ARCHIVE)
    done = subprocess.run(
        [
            "tar",
            "--warning=no-unknown-keyword",
            "--warning=no-timestamp",
            "--xattrs",
            "--xattrs-include=user.*",
            "--same-permissions",
            "--numeric-owner",
            "-xf",
            "-",
        ],
        input=archive,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == b""

    for meant in tree:
        path = os.path.join(os.fsencode(tmp_path), meant.path)
        info = os.lstat(path)
        if meant.kind is Kind.HARDLINK:
            assert os.path.samefile(path, os.path.join(os.fsencode(tmp_path), meant.link))
            continue
        assert stat.S_IMODE(info.st_mode) == meant.mode
        assert (info.st_uid, info.st_gid) == (meant.uid, meant.gid)
        assert info.st_mtime_ns // SECOND == meant.mtime_ns // SECOND, path
        if meant.kind is Kind.SYMLINK:
            assert os.readlink(path) == meant.link
            continue
        assert {key: os.getxattr(path, key) for key in os.listxattr(path)} == meant.xattrs
        if meant.kind is Kind.FILE:
            with open(path, "rb") as file:
                assert file.read() == ODD_CONTENT.get(meant.path, b"")


def test_archive_of_all_frames_for_tarfile() -> None:
    """Python's tarfile finds the same members and content."""
    tree = odd_tree()
    archive = io.BytesIO(b"".join(frame_tars(tree, ODD_CONTENT)))
    with tarfile.open(fileobj=archive, encoding="utf-8", errors="surrogateescape") as found:
        assert [os.fsencode(name) for name in found.getnames()] == [each.path for each in tree]
        for path, content in ODD_CONTENT.items():
            file = found.extractfile(os.fsdecode(path))
            assert file is not None
            assert file.read() == content
