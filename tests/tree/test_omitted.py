"""Records of what a scan leaves out: exact, in order, and never all of them in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OmittedListWrong
from shared.tree.omitted import (
    Omitted,
    OmittedWriter,
    Reason,
    check_omitted,
    format_omitted,
    parse_omitted,
    read_omitted,
)
from shared.tree.walk import Tree, TreeWalk, WalkOptions

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & set(b"\0/"))
REASONS = st.sampled_from([reason for reason in Reason if reason is not Reason.XATTR])
MOST_KILOBYTES = 24 * 1024


@given(NAMES, REASONS, st.integers(0, 2**62 - 1))
def test_any_name_survives(name: bytes, reason: Reason, size: int) -> None:
    """A record with any bytes in its path is read back as it was."""
    record = Omitted(b"Library/" + name, reason, size)
    assert parse_omitted(format_omitted(record)) == record


@given(NAMES)
def test_any_xattr_survives(name: bytes) -> None:
    """A record of an extended attribute with any name is read back as it was."""
    record = Omitted(b"Library/file", Reason.XATTR, xattr=b"user." + name)
    assert parse_omitted(format_omitted(record)) == record


def test_walk_reports_in_order(tmp_path: Path) -> None:
    """A walk reports omitted entries in the order that a reader demands, with sizes of folders."""
    tree = tmp_path / "Library"
    for name in ("a/x.tmp", "a.b/x.tmp", "cache/deep/er/file", "cache/file", "z"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"12345")
    os.mkfifo(tree / "a" / "pipe")
    for name in ("user.\x01", "user.a\nb"):
        os.setxattr(tree / "z", name, b"")
        os.setxattr(tree, name, b"")
    base = os.open(tmp_path, os.O_RDONLY)
    path = tmp_path / "omitted"
    with OmittedWriter(str(path)) as listed:
        walk = TreeWalk(Tree(base, b"Library"), WalkOptions(("*.tmp", "cache")), omit=listed.add)
        entries = [entry.path for entry in walk.entries()]
        announced = listed.finish()
    os.close(base)

    assert entries == [b"Library", b"Library/a", b"Library/a.b", b"Library/z"]
    found = [str(record) for record in check_omitted(str(path), announced, b"Library")]
    assert found == [
        "Library (xattr user.\\x01)",
        "Library (xattr user.a\\nb)",
        "Library/a/pipe (FIFO)",
        "Library/a/x.tmp (5 bytes)",
        "Library/a.b/x.tmp (5 bytes)",
        "Library/cache (10 bytes)",
        "Library/z (xattr user.\\x01)",
        "Library/z (xattr user.a\\nb)",
    ]


def test_nothing_left_out_is_a_file_that_tools_take(tmp_path: Path) -> None:
    """Without a single record zstd still finds a whole file."""
    path = tmp_path / "omitted"
    with OmittedWriter(str(path)) as listed:
        announced = listed.finish()
    assert list(read_omitted(str(path))) == []
    assert list(check_omitted(str(path), announced, b"Library")) == []
    done = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True)
    assert done.stdout == b""


def test_bit_that_flips(tmp_path: Path) -> None:
    """A list that was damaged on the volume is not taken for the announced one."""
    path = tmp_path / "omitted"
    with OmittedWriter(str(path)) as listed:
        listed.add(Omitted(b"Library/a", Reason.EXCLUDED, 1))
        announced = listed.finish()
        other = tmp_path / "other"
        with OmittedWriter(str(other)) as damaged:
            damaged.add(Omitted(b"Library/b", Reason.EXCLUDED, 1))
            damaged.finish()
    with pytest.raises(OmittedListWrong):
        list(check_omitted(str(other), announced, b"Library"))


_MILLION = """
import os, sys
from bench.processes import peak_kib  # getrusage(2) also counts the parent
from shared.tree.omitted import Omitted, OmittedWriter, Reason, check_omitted

before = peak_kib(os.getpid())
with OmittedWriter(sys.argv[1]) as listed:
    for number in range(1_000_000):
        path = b"Library/Metadata/%04d/%s-%07d.jpg" % (number // 1000, b"x" * 60, number)
        listed.add(Omitted(path, Reason.EXCLUDED, number))
    announced = listed.finish()
count = sum(1 for _ in check_omitted(sys.argv[1], announced, b"Library"))
print(count, peak_kib(os.getpid()) - before)
"""


@pytest.mark.long
def test_million_records_take_no_memory(tmp_path: Path) -> None:
    """A million records are written, checked and read back within 24 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, tmp_path / "omitted"],
        check=True,
        capture_output=True,
        text=True,
    )
    count, kilobytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert kilobytes < MOST_KILOBYTES
