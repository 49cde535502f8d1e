"""Every program that opens archives extracts the same tree, and always gets the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from rig import odd_tree
from rig.archive import downloads
from rig.archive.downloads import ENCODINGS, GZIP_FIRST, curl, shell, whole_seconds
from rig.oracle import rsync_differences
from rig.programs import Agent, running
from rig.volume import grow_small

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shared.wire.protocol import Snapshot

OPENERS = {
    "tar": {
        "gnu": "tar -xpf $1",
        "bsd": "bsdtar -xpf $1",
        "busybox": "busybox tar -xpf $1",
        "stdin": "cat $1 | tar -x",
    },
    "tar.gz": {
        "gnu": "tar -xpf $1",
        "bsd": "bsdtar -xpf $1",
        "busybox": "busybox tar -xzpf $1",
        "gzip": "gzip -dc $1 | tar -xp",
        "pigz": "pigz -dc $1 | tar -xp",
        "busybox-gunzip": "busybox gunzip -c $1 | busybox tar -xp",
    },
    "tar.zst": {
        "gnu": "tar -xpf $1",
        "bsd": "bsdtar -xpf $1",
        "zstd": "zstd -dc $1 | tar -xp",
        "zstd-busybox": "zstd -dc $1 | busybox tar -xp",
    },
}
BUSYBOX_LACKS = re.compile(r"\.[dL]\.\.t\.{6}")
"""It sets the times of files alone."""
PYTHON_LACKS = ".L..t......"
"""It leaves the times of symlinks as they come."""
BSD_LACKS = re.compile(
    r"\.[df]\.{8}x xattrs/(file|large|readonly large|folder/)"
    r"|(>f|cd)\+{9} names/(in )?e\u0301.*"
)
"""It does not undo ``%3D`` in names of xattrs, and normalizes what looks like UTF-8 to NFC."""
XATTRS = "tar --xattrs --xattrs-include=user.* --numeric-owner --same-owner -xpf $1"


@dataclass
class Served:
    """A library, its agent, and its archive in each encoding as curl got it."""

    library: Path
    agent: Agent
    snapshot: Snapshot
    archives: dict[str, Path]
    sums: Path


def _serve(place: Path, library: Path) -> Iterator[Served]:
    agent = Agent(place / "state", library, place / "agent.log")
    agent.pair()
    with running(agent):
        snapshot = agent.scan()
        archives = {suffix: place / f"archive.{suffix}" for suffix in ENCODINGS}
        for suffix, path in archives.items():
            got = curl(agent, downloads.archive(snapshot.id, suffix), "-o", path)
            assert got.code == 0, got.err
        sums = place / "SHA256SUMS"
        assert curl(agent, "/SHA256SUMS", "-o", sums).code == 0
        yield Served(library, agent, snapshot, archives, sums)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return the library of most tests, with times in whole seconds."""
    place = tmp_path_factory.mktemp("small")
    yield from _serve(place, whole_seconds(grow_small(place / "vm" / "Library")))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a library with all legal oddities, with times in whole seconds."""
    place = tmp_path_factory.mktemp("odd")
    library = place / "vm" / "Library"
    odd_tree.grow(library)
    odd_tree.remove_specials(library)
    yield from _serve(place, whole_seconds(library))


def _sums_hold(served: Served, place: Path) -> bool:
    checked = shell("sha256sum --check --quiet --strict $1", served.sums, cwd=place)
    return checked.code == 0


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        pytest.param(suffix, line, id=f"{suffix}-{name}")
        for suffix, lines in OPENERS.items()
        for name, line in lines.items()
    ],
)
def test_any_program_makes_the_same_tree(
    small: Served, suffix: str, line: str, tmp_path: Path
) -> None:
    """Each program extracts the same content, modes, owners, times and links."""
    opened = shell(line, small.archives[suffix], cwd=tmp_path)

    assert (opened.code, opened.err) == (0, "")
    assert os.listdir(tmp_path) == ["Library"]
    differences = rsync_differences(small.library, tmp_path / "Library")
    if "busybox tar" in line:
        differences = [each for each in differences if not BUSYBOX_LACKS.match(each)]
    assert differences == []
    assert _sums_hold(small, tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_python_makes_the_same_tree(small: Served, suffix: str, tmp_path: Path) -> None:
    """``tarfile`` detects the encoding and reads to the end."""
    with tarfile.open(small.archives[suffix]) as opened:
        opened.extractall(tmp_path, filter="fully_trusted")  # noqa: S202 - it is ours

    differences = rsync_differences(small.library, tmp_path / "Library")
    assert [each for each in differences if not each.startswith(PYTHON_LACKS)] == []
    assert _sums_hold(small, tmp_path)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_nothing_follows_the_end_of_the_archive(small: Served, suffix: str) -> None:
    """Decoders accept every byte, and the tar ends with its two zero blocks."""
    lines = {
        "tar": "cat $1",
        "tar.gz": "gzip -t $1 && pigz -t $1 && gzip -dc $1",
        "tar.zst": "zstd -qt $1 && zstd -dc $1",
    }
    same = shell(
        f"{{ {lines[suffix]}; }} | cmp - $2", small.archives[suffix], small.archives["tar"]
    )
    assert (same.code, same.out, same.err) == (0, "", "")
    sizes = shell("tar -tRf $1 | tail -n 1; stat -c %s $1", small.archives["tar"]).out.splitlines()
    block = int(sizes[0].removeprefix("block ").partition(":")[0])
    assert "** Block of NULs **" in sizes[0]
    assert int(sizes[1]) == (block + 2) * 512


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of any owner")
@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_gnu_tar_makes_every_oddity(odd: Served, suffix: str, tmp_path: Path) -> None:
    """GNU tar extracts every odd name, time, id, xattr, mode and link."""
    opened = shell(XATTRS, odd.archives[suffix], cwd=tmp_path)

    assert opened.code == 0, opened.err
    assert rsync_differences(odd.library, tmp_path / "Library") == []
    assert _sums_hold(odd, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of any owner")
def test_bsdtar_makes_every_oddity(odd: Served, tmp_path: Path) -> None:
    """Libarchive extracts the same, except what it never extracts."""
    line = "LC_ALL=C.UTF-8 bsdtar --numeric-owner -xpf $1"
    opened = shell(line, odd.archives["tar.gz"], cwd=tmp_path)

    assert opened.code == 0, opened.err
    differences = rsync_differences(odd.library, tmp_path / "Library")
    assert [each for each in differences if not BSD_LACKS.fullmatch(each)] == []


@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_archive_has_the_same_bytes_each_time(small: Served, suffix: str, tmp_path: Path) -> None:
    """Each download, also after a restart and frame by frame, has the announced bytes."""
    first = small.archives[suffix]
    path = downloads.archive(small.snapshot.id, suffix)
    again, after, frames = (tmp_path / name for name in ("again", "after", "frames"))

    assert curl(small.agent, path, "-o", again).code == 0
    said = downloads.announced_digest(small.agent, path)
    small.agent.kill()
    small.agent.start()
    assert downloads.announced_digest(small.agent, path) == said
    assert curl(small.agent, path, "-o", after).code == 0
    one_by_one = f"frames/[0-{small.snapshot.frames - 1}].{suffix}"
    with frames.open("wb") as file:
        words = downloads.curl_words(small.agent, path.replace(f"archive.{suffix}", one_by_one))
        assert subprocess.run(words, stdout=file, check=False).returncode == 0

    assert {downloads.digest(each) for each in (first, again, after, frames)} == {said}
