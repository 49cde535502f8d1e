"""Odd but legal content arrives exactly."""

from __future__ import annotations

import json
import os
import signal
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from rig import odd_tree
from rig.oracle import omitted, rsync_differences, sums_hold
from rig.programs import Agent, Finished, Puller, running
from rig.waiting import wait_until

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAME = 4 * 1024 * 1024

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make, and read, files of any owner and mode"
)


@dataclass
class OddSource:
    """A served tree with every oddity, and one finished pull of it."""

    library: Path
    skipped: list[str]
    agent: Agent
    puller: Puller
    done: Finished

    @property
    def arrived(self) -> Path:
        """Return the library on the volume."""
        return self.puller.target / "Library"


@contextmanager
def served(place: Path, library: Path) -> Iterator[tuple[Agent, Puller]]:
    """Start an agent for ``library``, and return a puller for it in the folder ``place``."""
    agent = Agent(place / "state", library, place / "agent.log")
    agent.pair()
    target = place / "config"
    target.mkdir()
    with running(agent):
        yield agent, Puller(target, place / "puller.log", agent.pairing)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddSource]:
    """Pull once, then remove special files from the source so that rsync can compare."""
    place = tmp_path_factory.mktemp("odd")
    library = place / "vm" / "Library"
    skipped = odd_tree.grow(library)
    with served(place, library) as (agent, puller):
        done = puller.pull()
        odd_tree.remove_specials(library)
        yield OddSource(library, skipped, agent, puller, done)


def test_every_oddity_arrives_exactly(odd: OddSource) -> None:
    """Content, names, links, modes, owners, times and xattrs arrive: rsync finds no difference."""
    assert odd.done.code == ExitCode.OK, odd.done.text
    assert rsync_differences(odd.library, odd.arrived) == []
    assert sums_hold(odd.puller.target)


def test_nanoseconds_owners_and_links_are_those_of_lstat(odd: OddSource) -> None:
    """Attributes that rsync may round or ignore are the same by lstat, for every kind of entry."""
    mine, theirs = odd_tree.everything(odd.arrived), odd_tree.everything(odd.library)

    def seen(found: dict[bytes, os.stat_result]) -> dict[bytes, tuple[int, ...]]:
        return {
            path: (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns)
            + (() if stat.S_ISDIR(info.st_mode) else (info.st_nlink, info.st_size))
            for path, info in found.items()
        }

    assert seen(mine) == seen(theirs)
    assert len(mine) > 300


def test_holes_stay_holes(odd: OddSource) -> None:
    """No file takes more space than in the source, except a block where a hole begins."""
    theirs = odd_tree.everything(odd.library)
    for path, info in odd_tree.everything(odd.arrived).items():
        if stat.S_ISREG(info.st_mode):
            assert info.st_blocks <= theirs[path].st_blocks + 16, path
    hollow = [theirs[path] for path in theirs if b"hole at all" in path]
    assert len(hollow) == 2
    assert all(info.st_blocks == 0 for info in hollow)
    assert (odd.arrived / "sparse" / "large hole at all").lstat().st_blocks == 0


def test_fifos_sockets_and_devices_are_left_out_and_listed(odd: OddSource) -> None:
    """A warning has examples, the list beside the receipt has all, and none of them arrives."""
    assert sorted(omitted(odd.puller.target)) == [line.rpartition(" (")[0] for line in odd.skipped]
    assert len(odd.skipped) >= 2
    (warned,) = [line for line in odd.done.log if "left out" in line.get("event", "")]
    assert warned["count"] == len(odd.skipped)
    assert sorted(warned["examples"]) == odd.skipped
    assert os.listdir(odd.arrived / "specials") == ["file"]


def test_status_and_verify_take_odd_names(odd: OddSource) -> None:
    """``status`` and ``verify`` accept odd names without the agent, and find a flipped bit."""
    standing = odd.puller.run("status", "--json")
    assert standing.returncode == ExitCode.OK
    assert json.loads(standing.stdout)["percent"] == 100
    assert odd.puller.run("verify").returncode == ExitCode.OK

    victim = odd.arrived / os.fsdecode(b"names/line\nbreak")
    victim.write_bytes(b"line\nBreak")
    try:
        found = odd.puller.run("verify")
    finally:
        victim.write_bytes(b"line\nbreak")
        before = (odd.library / os.fsdecode(b"names/line\nbreak")).lstat()
        os.utime(victim, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert found.returncode == ExitCode.INTEGRITY
    assert "line\\nbreak" in found.stderr.replace("\\\\", "\\")


def test_owner_option_holds_for_every_kind_of_entry(odd: OddSource, tmp_path: Path) -> None:
    """With --owner, every file, folder and symlink has that owner and is otherwise unchanged."""
    puller = Puller(tmp_path, tmp_path / "log", odd.agent.pairing)

    done = puller.pull("--owner", "1000:1001")

    assert done.code == ExitCode.OK, done.text
    arrived = odd_tree.everything(tmp_path / "Library")
    assert {(info.st_uid, info.st_gid) for info in arrived.values()} == {(1000, 1001)}
    assert rsync_differences(odd.library, tmp_path / "Library", owner=False) == []


def test_owner_changed_between_interrupted_and_next_run(tmp_path: Path) -> None:
    """With --owner after an interrupted run, entries of the first run get the new owner too."""
    library = tmp_path / "vm" / "Library"
    (library / "small").mkdir(parents=True)
    for number in range(30):
        file = library / "small" / f"{number}"
        file.write_bytes(os.urandom(1000))
        file.chmod(0o4750 if number % 2 else 0o000)
    (library / "small" / "link").symlink_to("0")
    (library / "small" / "hard").hardlink_to(library / "small" / "1")
    (library / "small2").write_bytes(os.urandom(FRAME))
    with (library / "vast").open("wb") as file_with_hole:
        file_with_hole.truncate(60 * FRAME)
    with served(tmp_path, library) as (agent, puller):
        staged = puller.target / ".plexodus" / "staging" / "Library" / "vast"
        first = puller.begin("--jobs", "1")
        wait_until(staged.exists, meanwhile=first)
        first.send_signal(signal.SIGTERM)
        stopped = puller.finished(first)
        assert stopped.code == ExitCode.INTERRUPTED, stopped.text
        assert not (puller.target / "Library").exists()
        assert (staged.parent / "small" / "1").lstat().st_uid == os.geteuid()
        before = agent.frames_asked()

        done = puller.pull("--owner", "1000:1001")

        assert done.code == ExitCode.OK, done.text
        again = agent.frames_asked()[len(before) :]
        assert 0 not in again  # brought by the first run: given away, not fetched again
    arrived = odd_tree.everything(puller.target / "Library")
    assert {(info.st_uid, info.st_gid) for info in arrived.values()} == {(1000, 1001)}
    assert rsync_differences(library, puller.target / "Library", owner=False) == []
    assert puller.run("verify").returncode == ExitCode.OK


def test_excluded_paths_stay_away(odd: OddSource, tmp_path: Path) -> None:
    """Excluded names and paths do not arrive, and other names of an excluded hard link do."""
    puller = Puller(tmp_path, tmp_path / "log", odd.agent.pairing)
    options = [f"--exclude={glob}" for glob in ("names", "sizes/empty*", "1[0-9]24", "here")]

    done = puller.pull(*options, "--exclude", "sparse/", "--exclude", "/paths/deep")

    assert done.code == ExitCode.OK, done.text
    arrived = tmp_path / "Library"
    left = set(odd_tree.everything(odd.library)) - set(odd_tree.everything(arrived))
    tops = {b"names", b"sparse", b"paths/deep", b"sizes/empty folder", b"hard links/here"}
    tops |= {b"sizes/1024"}
    assert {path for path in left if os.path.dirname(path) not in left} == tops
    named = {path.removeprefix("Library/") for path in omitted(tmp_path)}
    assert {os.fsencode(path) for path in named} == tops
    link = arrived / "hard links"
    assert (link / "also large").lstat().st_ino == (link / "there" / "also large").lstat().st_ino


def test_excludes_from_environment_are_one_a_line(
    odd: OddSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns with blanks need no quoting, and a newline at the end is no pattern."""
    puller = Puller(tmp_path, tmp_path / "log", odd.agent.pairing)
    usual = puller.environment()
    globs = "hard links\nsparse\nonly a folder in it\nn*\npaths\n"
    monkeypatch.setattr(puller, "environment", lambda: usual | {"PLEXODUS_EXCLUDE": globs})

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    gone = set(os.listdir(odd.library)) - set(os.listdir(tmp_path / "Library"))
    assert gone == {"hard links", "sparse", "names", "paths"}
    assert not (tmp_path / "Library" / "sizes" / "only a folder in it").exists()
    assert (tmp_path / "Library" / "sizes" / "empty folder").is_dir()


def test_path_past_path_max(tmp_path: Path) -> None:
    """A path longer than any system call takes (5,000 bytes) arrives, with its xattr and time."""
    library = tmp_path / "vm" / "Library"
    library.mkdir(parents=True)
    _dig(library, make=True)
    with served(tmp_path, library) as (_, puller):
        done = puller.pull()

        assert done.code == ExitCode.OK, done.text
        assert puller.run("verify").returncode == ExitCode.OK
    assert _dig(puller.target / "Library") == _dig(library)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_file_past_8_gib(tmp_path: Path) -> None:
    """A file larger than a ustar header can say arrives with its data and its holes."""
    library = tmp_path / "vm" / "Library"
    library.mkdir(parents=True)
    size = 8 * 1024**3 + 5
    offsets = (0, 3 * 1024**3 + 1, 2**32 - 3, size - 9)
    with (library / "vast").open("wb") as file:
        file.truncate(size)
        for offset in offsets:
            os.pwrite(file.fileno(), b"%09d" % (offset % 10**9), offset)
    with served(tmp_path, library) as (_, puller):
        done = puller.pull(timeout=600)

    assert done.code == ExitCode.OK, done.text
    arrived = puller.target / "Library" / "vast"
    assert arrived.stat().st_size == size
    # One block more: ext4 maps scattered extents in a block of its own, by the order they came in.
    most = (library / "vast").stat().st_blocks + 4096 // 512
    assert arrived.stat().st_blocks <= most
    with arrived.open("rb") as file:
        for offset in offsets:
            assert os.pread(file.fileno(), 9, offset) == b"%09d" % (offset % 10**9)
    assert sums_hold(puller.target)


def _dig(root: Path, *, make: bool = False) -> tuple[bytes, bytes, int]:
    """Return content, xattr and time of a file below 25 folders with names of 200 bytes."""
    name = b"d" * 200
    fd = os.open(root, os.O_RDONLY)
    for _ in range(25):
        if make:
            os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open(b"file", os.O_RDWR | os.O_CREAT if make else os.O_RDONLY, dir_fd=fd)
    try:
        if make:
            os.write(file, b"at the bottom")
            os.setxattr(file, "user.depth", b"25")
            os.utime(file, ns=(-7, -7))
        return os.pread(file, 100, 0), os.getxattr(file, "user.depth"), os.fstat(file).st_mtime_ns
    finally:
        os.close(file)
        os.close(fd)


@pytest.mark.parametrize("content", ["folders", "symlink"])
def test_library_without_a_file(tmp_path: Path, content: str) -> None:
    """Folders alone are refused before anything is published. A symlink moves, also twice."""
    library = tmp_path / "vm" / "Library"
    (library / "Cache").mkdir(parents=True)
    if content == "symlink":
        (library / "link").symlink_to("Cache")
    with served(tmp_path, library) as (agent, puller):
        for _ in range(2):
            done = puller.pull("--no-cutover")
            if content == "symlink":
                assert done.code == ExitCode.OK, done.text
                assert rsync_differences(library, puller.target / "Library") == []
            else:
                assert done.code == ExitCode.PREFLIGHT, done.text
                assert "only folders" in done.text
                assert not (puller.target / "Library").exists()
        assert agent.frames_asked() == [] or content == "symlink"
