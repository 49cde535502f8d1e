"""A volume on which SQLite's write-ahead log does not work is refused, and no other one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.mounts import NEEDS_ROOT, mounted

from initpuller.volume.fitness import database_trial
from initpuller.volume.fitness.database_trial import Verdict, try_database, write_row

if TYPE_CHECKING:
    from pathlib import Path


def test_database_works_here(tmp_path: Path) -> None:
    """A usual filesystem has no shortfall."""
    assert try_database(str(tmp_path)) is Verdict.WORKS


@NEEDS_ROOT
def test_volume_that_is_full(tmp_path: Path) -> None:
    """A full volume is not taken for one without locks."""
    with mounted(tmp_path / "full", "-t", "tmpfs", "-o", "size=1M", "plexodus-test"):
        full = tmp_path / "full"
        about = os.statvfs(full)
        with (full / "filler").open("wb") as file:
            file.write(bytes(about.f_bavail * about.f_frsize - 8192))
        assert try_database(str(full)) is Verdict.FULL


@pytest.mark.parametrize(
    ("patch", "verdict"),
    [
        ("fcntl.flock = refuse", Verdict.NO_FLOCK),
        ("fcntl.lockf = refuse", Verdict.NO_FCNTL),
        ("fcntl.flock = lambda *_: time.sleep(60)", Verdict.HANGS),
        ("sqlite3.connect = broken", Verdict.NO_WAL),
        ("sqlite3.connect = apart", Verdict.NOT_EXCLUSIVE),
    ],
)
def test_volume_that_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: str, verdict: Verdict
) -> None:
    """Each shortfall has its own verdict, and a call that never returns has one, too.

    Without locks, two processes write at the same time. Here, each has a database of its own.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import fcntl, os, sqlite3, sys, time\n"
        "def refuse(*_):\n    raise OSError(95, 'Operation not supported')\n"
        "def broken(*_, **__):\n    raise sqlite3.OperationalError('locking protocol')\n"
        "real = sqlite3.connect\n"
        "def apart(path, *rest, **more):\n"
        "    found = real(f'{path}-{os.getpid()}', *rest, **more)\n"
        "    if rest[0] == 0:\n"
        "        found.execute('CREATE TABLE trial (number INTEGER)')\n"
        "    return found\n"
        f"{patch}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(database_trial, "_SECONDS", 2.0)
    folder = tmp_path / "volume"
    folder.mkdir()
    assert try_database(str(folder)) is verdict


def test_locks_that_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume on NFS is not refused: its server has one lock a file for flock and fcntl."""
    (tmp_path / "sitecustomize.py").write_text(
        "import fcntl\n"
        "holds = set()\n"
        "def locking(kind):\n"
        "    def lock(file, how):\n"
        "        if holds - {kind}:\n"
        "            raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "        (holds.discard if how & fcntl.LOCK_UN else holds.add)(kind)\n"
        "    return lock\n"
        "fcntl.flock, fcntl.lockf = locking('flock'), locking('fcntl')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "volume"
    folder.mkdir()
    assert try_database(str(folder)) is Verdict.WORKS


def test_second_process_that_finds_nothing(tmp_path: Path) -> None:
    """A row that another process wrote, and that is not seen, is noticed."""
    with closing(sqlite3.connect(tmp_path / "trial.db")) as database:
        database.execute("CREATE TABLE trial (number)")
    assert write_row(str(tmp_path / "trial.db")) is Verdict.NOT_SHARED
