"""The judges of the campaign see each damage, at the end of a story and at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from campaign import watch
from campaign.oracle import copy_damage, library_damage, rehearsal_damage, server_faults
from campaign.plex import make_plex, processes_on
from campaign.vm import Vm
from campaign.volume import Volume
from campaign.watch import Watch
from rig.oracle import rsync_differences
from rig.plex.commands import only_plex
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def published(moved: Path, tmp_path: Path) -> Path:
    """Return a copy of a volume with a moved library."""
    target = tmp_path / "config"
    subprocess.run(["cp", "-a", moved, target], check=True)
    return target


def flip(path: Path) -> None:
    """Flip one bit of a file without changing its times."""
    info, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def some_file(target: Path) -> Path:
    """Return a file of the library on a volume."""
    return next((target / "Library").rglob("Preferences.xml"))


def test_flipped_bit_of_a_file_with_two_names(tmp_path: Path) -> None:
    """Both names count as damaged, because the frame may be that of the other one."""
    volume = Volume(tmp_path)
    staged = volume.target / ".plexodus" / "staging" / "Library"
    staged.mkdir(parents=True)
    (staged / "file").write_bytes(b"content")
    os.link(staged / "file", staged / "link")
    assert volume.flip(random.Random(1)) in ("file", "link")  # noqa: S311 - reproducible
    assert (staged / "link").read_bytes() != b"content"
    assert {str(each) for each in volume.flipped} == {"file", "link"}


def test_library_as_it_was_moved(published: Path, made: Path) -> None:
    """No judge objects to a whole library."""
    assert library_damage(published, made) == []


def test_flipped_byte_in_a_published_library(published: Path, made: Path) -> None:
    """Both judges report a flipped bit whose file has the right size and time."""
    flip(some_file(published))
    digests, differences = library_damage(published, made)
    assert "sha256sum" in digests
    assert "Preferences.xml" in differences
    assert any("sha256sum" in each for each in rehearsal_damage(published, made, made))


@pytest.mark.parametrize("name", ["folder", "folder/file", "symlink"])
def test_time_that_differs_by_a_nanosecond(tmp_path: Path, name: str) -> None:
    """Rsync reports it of a file, a folder and a symlink. Its default compares seconds."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "file").write_text("content")
    (source / "symlink").symlink_to("folder")
    subprocess.run(["cp", "-a", source, target], check=True)
    assert rsync_differences(source, target) == []
    info = (source / name).lstat()
    times = info.st_atime_ns, info.st_mtime_ns ^ 1
    os.utime(target / name, ns=times, follow_symlinks=False)
    (found,) = rsync_differences(source, target)
    assert found.split()[1].rstrip("/") == name


def test_missing_entry_in_a_published_library(published: Path, made: Path) -> None:
    """A missing file is reported, and so is an empty folder, which has no digest."""
    folder = next(each for each in (published / "Library").rglob("Sessions") if each.is_dir())
    folder.rmdir()
    (found,) = library_damage(published, made)
    assert "Sessions" in found
    some_file(published).unlink()
    assert len(library_damage(published, made)) == 2
    assert any("Preferences.xml" in each for each in rehearsal_damage(published, made, made))


def test_wrong_file_of_a_rehearsal_whose_digest_was_wrong_too(
    published: Path, made: Path, tmp_path: Path
) -> None:
    """A file that Plex has not changed is compared with what was made."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", made, source], check=True)
    damaged, sums = some_file(published), published / ".plexodus" / "SHA256SUMS"
    before = hashlib.sha256(damaged.read_bytes()).hexdigest()
    flip(damaged)
    after = hashlib.sha256(damaged.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))
    found = [each for each in rehearsal_damage(published, made, source) if "rsync" in each]
    assert len(found) == 1
    assert "Preferences.xml" in found[0]
    next(source.rglob("Preferences.xml")).write_text("changed by Plex")
    assert [each for each in rehearsal_damage(published, made, source) if "rsync" in each] == []


def test_file_that_the_digests_do_not_name(published: Path, made: Path) -> None:
    """A list without one file, or another one than the receipt names, is reported."""
    sums = published / ".plexodus" / "SHA256SUMS"
    lines = sums.read_bytes().splitlines(keepends=True)
    assert library_damage(published, made) == []
    before = rehearsal_damage(published, made, made)
    sums.write_bytes(b"".join(each for each in lines if b"Preferences.xml" not in each))
    (other,) = library_damage(published, made)
    assert "not the one that the receipt names" in other
    found = [each for each in rehearsal_damage(published, made, made) if each not in before]
    assert found[0] == other
    assert found[1].startswith("files without a digest")
    assert "Preferences.xml" in found[1]


def test_damage_of_a_library_in_staging(published: Path, made: Path, tmp_path: Path) -> None:
    """A missing file and a flipped bit are reported, but not what Plex has changed since."""
    source, library = tmp_path / "source", published / "Library"
    subprocess.run(["cp", "-a", made, source], check=True)
    assert copy_damage(library, made, source) == []
    damaged = some_file(published)
    flip(damaged)
    (found,) = copy_damage(library, made, source)
    assert "Preferences.xml" in found
    assert copy_damage(library, made, source, [damaged.relative_to(library)]) == []
    (source / damaged.relative_to(library)).write_text("changed by Plex")
    assert copy_damage(library, made, source) == []
    damaged.unlink()
    assert "missing" in copy_damage(library, made, source)[0]


def test_lost_row_of_a_rehearsal(published: Path, made: Path) -> None:
    """A row that Plex had before the rehearsal is missed in each database."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
    for database in (published / "Library").rglob("*.db"):
        with closing(sqlite3.connect(database)) as opened, opened:
            names = [name for (name,) in opened.execute(query)]
            first = 'DELETE FROM "{0}" WHERE rowid = (SELECT min(rowid) FROM "{0}")'
            assert any(opened.execute(first.format(each)).rowcount for each in names)
        found = rehearsal_damage(published, made, made)
        assert f"{database.name} of the rehearsal has other rows than were made" in found


def test_library_of_another_moment(published: Path, made: Path, tmp_path: Path) -> None:
    """A library that equals an earlier state of the source is not the library at the stop."""
    later = tmp_path / "later"
    subprocess.run(["cp", "-a", made, later], check=True)
    assert library_damage(published, later) == []
    next(later.rglob("Preferences.xml")).write_text("changed")
    assert library_damage(published, later) != []


def test_two_servers_and_none(plex_library: Path, tmp_path: Path) -> None:
    """Plex beside a published library is reported, and so is neither of the two."""
    fence = tmp_path / "fence"
    plex = make_plex(tmp_path / "plex", plex_library, [fence], 0)
    with only_plex(), ExitStack() as stack:
        plex.start()
        stack.callback(plex.stop)
        running = len(processes_on(plex.server))
        assert server_faults(running, on_volume=False, at_rest=True) == []
        (two,) = server_faults(running, on_volume=True, at_rest=False)
        assert "two servers" in two
        plex.stop()
        fence.touch()
        plex.start()
        running = len(processes_on(plex.server))
        (none,) = server_faults(running, on_volume=False, at_rest=True)
        assert "no server" in none
        assert server_faults(running, on_volume=True, at_rest=True) == []
    two_processes = server_faults(2, on_volume=True, at_rest=True, may_be_two=True)
    assert two_processes == ["2 processes of Plex run on the VM"]


class Scene:
    """A watch of a VM without an agent and of a volume, whose library can be taken away."""

    def __init__(self, folder: Path, published: Path, made: Path, *, has_cutover: bool) -> None:
        self.reports: list[str] = []
        self.failures: list[str] = []
        source = folder / "source"
        subprocess.run(["cp", "-a", made, source], check=True)
        self.vm = Vm(folder / "vm", source, None, has_unit=False)
        self.library, self._away = published / "Library", published / "away"
        self.watch = Watch(
            self.vm,
            Volume(folder),
            made,
            report=self.reports.append,
            fail=self.failures.append,
            has_cutover=has_cutover,
        )
        self.take_away()

    def take_away(self) -> None:
        """Leave nothing under the library's name."""
        self.library.rename(self._away)

    def publish(self) -> None:
        """Give it its name."""
        self._away.rename(self.library)

    def set_phase(self, phase: str, serial: int) -> None:
        """Write the agent's record of the cutover."""
        self.vm.agent.state.mkdir(exist_ok=True)
        record = self.vm.agent.state / "cutover.json"
        record.write_text(json.dumps({"id": "c1", "phase": phase, "serial": serial}))

    def undo(self) -> None:
        """Have a person undo the cutover, and wait for the end of the command."""
        undo = subprocess.Popen(["true"])
        undo.wait()
        self.vm.undos.append(undo)

    def log_commit(self, status: int) -> None:
        """Write the line of a request to commit the cutover to the agent's log."""
        line = {"event": "request", "path": "/v1/cutover/c1/commit", "status": status}
        with self.vm.agent.log.open("a") as log:
            log.write(json.dumps(line) + "\n")


def test_part_of_a_library_at_any_moment(published: Path, made: Path, tmp_path: Path) -> None:
    """The watch reports a part of a library that has the final name for a moment."""
    scene = Scene(tmp_path, published, made, has_cutover=False)
    scene.vm.plex.stop()
    (scene.library.with_name("away") / "Application Support").chmod(0o711)
    with scene.watch:
        scene.publish()
        wait_until(lambda: scene.reports, 20)
        scene.take_away()
    assert len(scene.reports) == 1
    assert "published in part" in scene.reports[0]
    assert scene.failures == []


@pytest.mark.parametrize("is_moved_back", [False, True])
def test_part_of_a_library_that_is_completed_at_once(
    published: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_moved_back: bool,  # noqa: FBT001
) -> None:
    """It is reported although the next check would find it whole, unless it was moved back."""
    scene = Scene(tmp_path, published, made, has_cutover=False)
    scene.vm.plex.stop()
    part = scene.library.with_name("away") / "Application Support"
    mode = part.stat().st_mode
    part.chmod(0o711)
    checks: list[list[str]] = []

    def check_and_complete(target: Path, reference: Path) -> list[str]:
        """Judge the library, and complete it before anybody can judge it a second time."""
        checks.append(library_damage(target, reference))
        if is_moved_back:
            scene.take_away()
        else:
            (scene.library / part.name).chmod(mode)
        return checks[-1]

    monkeypatch.setattr(watch, "library_damage", check_and_complete)
    with scene.watch:
        scene.publish()
        wait_until(lambda: checks, 20)
        wait_until(lambda: scene.reports or is_moved_back, 20)
    assert checks[0] != []
    assert len(scene.reports) == (0 if is_moved_back else 1)
    assert scene.failures == []


def test_library_of_an_earlier_stop(published: Path, made: Path, tmp_path: Path) -> None:
    """A library that equals the source at the stop before the last one is out of date."""
    scene = Scene(tmp_path, published, made, has_cutover=False)
    scene.vm.plex.stop()
    next(scene.vm.library.rglob("Preferences.xml")).write_text("watched since")
    scene.publish()
    assert scene.watch.damage() == []
    scene.take_away()
    scene.vm.plex.stop()
    scene.publish()
    (found,) = scene.watch.damage()
    assert "Preferences.xml" in found


def test_publication_before_the_commit(published: Path, made: Path, tmp_path: Path) -> None:
    """It is reported although Plex is stopped, and although an earlier move was undone."""
    scene = Scene(tmp_path, published, made, has_cutover=True)
    scene.vm.plex.stop()
    scene.set_phase("stopped", 1)
    with scene.watch:
        scene.publish()
        wait_until(lambda: scene.reports, 20)
    assert "before the commit" in scene.reports[0]


def test_publication_after_the_commit(published: Path, made: Path, tmp_path: Path) -> None:
    """Nothing is reported, and a Plex beside it is excused by an undo of this move alone."""
    scene = Scene(tmp_path, published, made, has_cutover=True)
    scene.undo()
    assert not scene.watch.is_undone()
    scene.vm.plex.stop()
    scene.set_phase("committed", 1)
    assert not scene.watch.is_undone()
    scene.publish()
    assert scene.watch.damage() == []
    assert not scene.watch.is_undone()
    scene.undo()
    assert scene.watch.is_undone()
    assert scene.reports == []


@pytest.mark.parametrize("status", [None, 409, 200])
def test_publication_after_an_undo(
    published: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """An undo excuses a publication only if the agent's log has a commit that it accepted."""
    monkeypatch.setattr(watch, "_LOG_SECONDS", 0.1)
    scene = Scene(tmp_path, published, made, has_cutover=True)
    scene.vm.plex.stop()
    scene.set_phase("stopped", 1)
    scene.undo()
    if status is not None:
        scene.log_commit(status)
    assert not scene.watch.is_undone()
    scene.set_phase("idle", 2)
    scene.publish()
    assert scene.watch.is_undone() == (status == 200)
    expected = [] if status == 200 else ["the library was published before the commit"]
    assert scene.reports == expected


def test_watch_that_fails_is_not_silent(published: Path, made: Path, tmp_path: Path) -> None:
    """A story whose watch has ended is not judged: nobody has seen what came after."""
    scene = Scene(tmp_path, published, made, has_cutover=True)
    shutil.rmtree(scene.vm.plex.here / "stops")
    scene.set_phase("committed", 1)
    with scene.watch:
        wait_until(lambda: scene.failures, 20)
    assert "the watch has ended" in scene.failures[0]
