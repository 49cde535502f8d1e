"""Attributes that a volume cannot keep are refused before the first frame, or listed."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from rig.oracle import sums_hold
from rig.programs import Agent, running
from rig.volume import RECEIPT_FILES, grow_tiny, left_of_pull, pull, run_puller

from initpuller.volume.decision import OnExisting
from initpuller.volume.publish.unpublish import take_back
from initpuller.volume.records.journal import count_done
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.state import load_state
from initpuller.volume.records.target import open_layout
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.volume import Ended

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount volumes")
SECOND = 10**9
YEAR_2500 = 16_725_225_600 * SECOND + 5
YEAR_1800 = -5_364_662_400 * SECOND + 5


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mount something at a folder until the test ends."""
    mounted: list[Path] = []

    def mount(place: Path, *options: str | Path) -> None:
        subprocess.run(["mount", *options, place], check=True)
        mounted.append(place)

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def mount_ext4(tmp_path: Path, mount: Callable[..., None]) -> Callable[..., None]:
    """Mount a new ext4 of 64 MiB at a folder."""

    def mount_ext4(place: Path, *options: str) -> None:
        image = tmp_path / f"{place.name}.img"
        with image.open("wb") as file:
            file.truncate(64 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", *options, image], check=True, capture_output=True)
        mount(place, "-o", "loop", image)
        (place / "lost+found").rmdir()

    return mount_ext4


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a library of four frames."""
    return grow_tiny(tmp_path / "vm" / "Library")


@pytest.fixture
def agent(tmp_path: Path, library: Path) -> Iterator[Agent]:
    """Return an agent for :func:`library`, which a test may still change before it pulls."""
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


def _receipt(target: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((target / ".plexodus" / "receipt.json").read_text())
    return found


def _refused(done: Ended, target: Path, agent: Agent, *words: str) -> None:
    """Require exit 15 with the reason, no requested frame, and no leftover of the probe."""
    assert done.code == ExitCode.STORAGE, done.text
    assert all(word in done.reason() for word in words), done.reason()
    assert agent.frames_asked() == []
    assert "probe" not in left_of_pull(target)
    assert not (target / "Library").exists()
    assert not (target / ".plexodus-probe").exists()


@needs_root
def test_volume_with_whole_seconds(
    target: Path, agent: Agent, library: Path, mount_ext4: Callable[..., None]
) -> None:
    """On ext4 with 128-byte inodes, times are cut to seconds, and the receipt says so."""
    mount_ext4(target, "-I", "128")
    assert pull(target, agent, "--until", "ready").code == ExitCode.OK
    (library / "late").write_bytes(b"changed between two runs")

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert _receipt(target)["losses"]["time_step_ns"] == SECOND
    for path in library.rglob("*"):
        there = (target / path.relative_to(library.parent)).lstat()
        assert there.st_mtime_ns == path.lstat().st_mtime_ns // SECOND * SECOND
    assert sums_hold(target)
    warned = [line for line in done.log if line.get("check") == "volume: times"]
    assert len(warned) == 1, done.text


@needs_root
def test_times_out_of_the_volumes_range(
    tmp_path: Path, target: Path, mount: Callable[..., None], mount_ext4: Callable[..., None]
) -> None:
    """Files of the years 2500 and 1800 get the nearest times that ext4 holds, in every run.

    The source is a tmpfs, which holds both. No frame of a rehearsal is forgotten for its times.
    """
    place = tmp_path / "source"
    place.mkdir()
    mount(place, "-t", "tmpfs", "plexodus-test")
    mount_ext4(target)
    library = grow_tiny(place / "Library")
    late, early = library / "Plex" / "thumb", library / "zero"
    os.utime(late, ns=(YEAR_2500, YEAR_2500))
    os.utime(early, ns=(YEAR_1800, YEAR_1800))
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    agent.pair()
    with running(agent):
        rehearsed = pull(target, agent, "--rehearse")
        assert rehearsed.code == ExitCode.OK, rehearsed.text
        layout = open_layout(str(target))
        take_back(PullRecord(layout), OnExisting.SKIP, rehearse=False)
        state = load_state(layout)
        assert state is not None
        frames = state.snapshot.frames
        assert count_done(layout.journal(state.snapshot.id), frames) == frames
        done = pull(target, agent)
        assert done.code == ExitCode.OK, done.text

    losses = _receipt(target)["losses"]
    assert (losses["time_step_ns"], losses["clamped_times"]) == (1, 2)
    assert losses["clamped"] == ["Library/Plex/thumb", "Library/zero"]
    assert (target / "Library/zero").stat().st_mtime_ns == -(2**31) * SECOND
    assert (target / "Library/Plex/thumb").stat().st_mtime_ns == (2**34 - 2**31 - 1) * SECOND
    exact = library / "Plex" / "Metadata" / "poster"
    moved = target / exact.relative_to(place)
    assert moved.stat().st_mtime_ns == exact.stat().st_mtime_ns


@needs_root
def test_xattr_too_large_for_the_volume(
    tmp_path: Path, target: Path, mount: Callable[..., None], mount_ext4: Callable[..., None]
) -> None:
    """Xattrs that ext4 has no space for are left out and listed; smaller ones arrive."""
    place = tmp_path / "source"
    place.mkdir()
    mount(place, "-t", "tmpfs", "plexodus-test")
    mount_ext4(target)
    library = grow_tiny(place / "Library")
    try:
        os.setxattr(library / "zero", "user.large", bytes(6000))
    except OSError:
        pytest.skip("this kernel's tmpfs has no user. xattrs")
    os.setxattr(library / "Plex" / "thumb", "user.small", b"kept")
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    agent.pair()
    with running(agent):
        done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    losses = _receipt(target)["losses"]
    assert (losses["without_xattrs"], losses["left_out"]) == (1, ["Library/zero"])
    assert os.listxattr(target / "Library" / "zero") == []
    assert os.getxattr(target / "Library" / "Plex" / "thumb", "user.small") == b"kept"


def test_volume_without_xattrs(
    target: Path, agent: Agent, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a volume without xattrs they are left out and listed, and the library still moves."""
    os.setxattr(library / "zero", "user.DOSATTRIB", b"0x20")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "listxattr", refuse)

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert _receipt(target)["losses"]["left_out"] == ["Library/zero"]


@needs_root
def test_owner_that_has_no_effect(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that forces an owner is refused with its mount, unless it is the owner asked for."""
    for name in ("fchown", "chown", "lchown"):
        monkeypatch.setattr(os, name, lambda *_, **__: None)

    done = pull(target, agent, "--owner", "1234:1234")
    _refused(done, target, agent, "on the volume at /", "1234:1234 has no effect: it is 0:0")

    assert pull(target, agent, "--owner", "0:0").code == ExitCode.OK


def test_mode_that_has_no_effect(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chmod without effect is reported before the first frame, with the mode."""
    monkeypatch.setattr(os, "fchmod", lambda *_, **__: None)

    done = pull(target, agent, "--until", "ready")

    _refused(done, target, agent, "setting the mode to 0644 has no effect: it is 0600")


@needs_root
def test_own_folder_on_another_filesystem(
    target: Path, agent: Agent, mount: Callable[..., None]
) -> None:
    """A .plexodus that is mounted of its own is refused: the library could never be renamed."""
    (target / ".plexodus").mkdir()
    mount(target / ".plexodus", "-t", "tmpfs", "plexodus-test")

    done = pull(target, agent)

    _refused(
        done, target, agent, f"{target}/.plexodus (tmpfs)", "cannot be renamed", "Invalid cross"
    )


@needs_root
def test_library_is_a_mount_point(
    tmp_path: Path, target: Path, agent: Agent, mount: Callable[..., None]
) -> None:
    """A mount point at Library exits 14 without the advice to set it aside."""
    (target / "Library").mkdir()
    (tmp_path / "other").mkdir()
    mount(target / "Library", "--bind", tmp_path / "other")
    for option in ("skip", "fail", "set-aside"):
        done = pull(target, agent, "--on-existing", option)
        if option == "skip" and done.code == ExitCode.OK:
            continue  # an empty folder that is not Plex's
        assert done.code == ExitCode.CONFLICT, done.text
        assert "A mount point cannot be renamed" in done.reason()
        assert "Move it away" not in done.reason()
    assert agent.frames_asked() == []


@pytest.mark.parametrize("name", ["Library", "Library/Plex/thumb"])
def test_volume_that_does_not_tell_its_size(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A volume that reports 0 of 0 blocks gets a warning, and the library moves."""
    real = os.fstatvfs

    def nothing(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[2:8] = [0] * 6
        return os.statvfs_result((*found, 0))

    monkeypatch.setattr(os, "fstatvfs", nothing)

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert "does not report its size" in done.text
    assert (target / name).exists()


class FoldingVolume:
    """A replacement of os.open for a filesystem that ignores case."""

    def __init__(self) -> None:
        self._real = os.open

    def open(
        self,
        path: str | bytes,
        flags: int,
        mode: int = 0o777,
        *,
        dir_fd: int | None = None,
    ) -> int:
        """Open a file, under another spelling of its name if there is one."""
        if flags & os.O_CREAT and dir_fd is not None:
            name = os.fsencode(path)
            for found in map(os.fsencode, os.listdir(dir_fd)):
                if found != name and found.lower() == name.lower():
                    if flags & os.O_EXCL:
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
                    path = found
        return self._real(path, flags, mode, dir_fd=dir_fd)


def test_names_that_differ_only_in_case(
    target: Path, agent: Agent, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that ignores case is refused with the pair; without such a pair it is used."""
    (library / "Plex" / "Poster.jpg").write_bytes(b"one")
    (library / "Plex" / "poster.jpg").write_bytes(b"another")
    monkeypatch.setattr(os, "open", FoldingVolume().open)

    done = pull(target, agent)
    _refused(done, target, agent, "Library/Plex/Poster.jpg and Library/Plex/poster.jpg")

    assert pull(target, agent, "--exclude", "poster.jpg").code == ExitCode.OK


def test_name_longer_than_the_volume_takes(
    target: Path, agent: Agent, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name over 143 bytes, the limit of eCryptfs, is refused before the first frame."""
    (library / ("n" * 200)).write_bytes(b"x")
    real = os.open

    def short(
        path: str | bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        if len(os.path.basename(os.fsencode(path))) > 143:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", short)

    _refused(pull(target, agent), target, agent, "200 bytes", "File name too long", "nnnn")


def test_probe_of_a_killed_run_is_removed(target: Path, agent: Agent) -> None:
    """The next run removes the remains of a killed probe, closed folders included."""
    closed = target / ".plexodus" / "probe" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").write_bytes(b"")
    closed.chmod(0)
    (target / ".plexodus-probe").mkdir()
    (target / ".plexodus-probe" / "probe").write_bytes(b"")

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert left_of_pull(target) == RECEIPT_FILES
    assert {path.name for path in target.iterdir()} == {".plexodus", "Library"}


def test_foreign_folder_with_the_probes_name_stays(target: Path, agent: Agent) -> None:
    """A foreign folder with the probe's name stays, and the run exits 15 with its path."""
    other = target / ".plexodus-probe" / "precious"
    other.mkdir(parents=True)

    done = pull(target, agent)

    assert done.code == ExitCode.STORAGE, done.text
    assert ".plexodus-probe" in done.reason()
    assert other.is_dir()


@needs_root
def test_preflight_leaves_nothing_behind(
    target: Path, agent: Agent, mount_ext4: Callable[..., None], mount: Callable[..., None]
) -> None:
    """A preflight reports what the volume cannot do, and removes its folder.

    Read-only, it warns.
    """
    mount_ext4(target, "-I", "128")
    arguments = ("preflight", "--target", target, "--json")
    done = run_puller(*arguments, pairing=agent.pairing)
    assert "multiple of 1 s" in done.out, done.text
    assert list(target.iterdir()) == []

    subprocess.run(["mount", "-o", "remount,ro", target], check=True)
    done = run_puller(*arguments, pairing=agent.pairing)
    checks = {each["name"]: each for each in json.loads(done.out)["target"]}
    assert checks["volume"]["outcome"] == "warning"
    assert "mounted read-only" in checks["volume"]["found"]


def test_modes_arrive_with_special_bits(target: Path, agent: Agent, library: Path) -> None:
    """Setuid, setgid and sticky bits are tried, and a volume that keeps them is accepted."""
    (library / "zero").chmod(0o4751)
    (library / "empty").chmod(0o3777)

    assert pull(target, agent).code == ExitCode.OK

    assert stat.S_IMODE((target / "Library" / "zero").stat().st_mode) == 0o4751
    assert stat.S_IMODE((target / "Library" / "empty").stat().st_mode) == 0o3777
