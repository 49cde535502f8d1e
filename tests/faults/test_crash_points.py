"""SIGKILL between each two durable steps, from the first record to the last removal.

The kills happen in children of this file run as a program (see the end): one start of Python
serves them all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from rig import forked
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, clean_environment
from rig.volume import RECEIPT_FILES, cut_at, fingerprint, grow_tiny, left_of_pull, pull

from initpuller.__main__ import main
from initpuller.pull import pending, transfer
from initpuller.volume.publish import publish, unpublish
from initpuller.volume.records import journal, pull_record
from initpuller.volume.staging import staging
from initpuller.workers.threads import THREAD
from shared.native import SWITCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from shared.digest import Buffer

ROOT = Path(__file__).parent.parent.parent
OLD = "what was there before"


def _run_driver(
    base: Path, agent: Agent, on_existing: str, who: str = "puller"
) -> list[dict[str, Any]]:
    """Kill a pull at each of its steps, run it again each time, and return the results."""
    done = subprocess.run(
        [sys.executable, __file__, base, on_existing, agent.library, who],
        check=False,
        capture_output=True,
        text=True,
        env=clean_environment()
        | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PLEXODUS_PAIRING": agent.pairing,
            SWITCH: "0",  # only steps of Python can be intercepted
        },
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


PUBLICATION = {"save_record", "rename", "fsync", "rename_noreplace", "unlink"}


def _check(
    seen: list[dict[str, Any]], final: set[str], needed: AbstractSet[str] = PUBLICATION
) -> None:
    """Require that all important steps were killed at, and that each next run succeeded."""
    steps = {each["step"] for each in seen}
    assert needed <= steps
    assert seen[-1]["killed"] is False, "the last run of all goes through without a kill"
    assert all(each["killed"] for each in seen[:-1])
    for number, each in enumerate(seen):
        assert each["after_kill"] in final, (number, each)
        assert each["code"] == 0, (number, each)
        assert each["differences"] == [], (number, each)
        assert each["sums"], (number, each)
        assert set(each["left"]) == RECEIPT_FILES, (number, each)
        assert len(each["owners"]) == 1, (number, each)


@pytest.fixture
def tiny_agent(tmp_path: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start an agent for a library of four frames that root does not own."""
    library = grow_tiny(tmp_path / "vm" / "Library")
    if os.geteuid() == 0:
        os.chown(library, 1234, 1235)
    agent = new_agent(library)
    agent.pair()
    agent.start()
    return agent


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for volumes, in memory if possible because of many syncs."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as place:
        yield Path(place)


def test_killed_between_each_two_steps_onto_an_empty_volume(
    volumes: Path, tiny_agent: Agent
) -> None:
    """The name is absent or complete after the kill; the next run leaves library and receipt."""
    seen = _run_driver(volumes, tiny_agent, "skip")

    _check(seen, {"absent", "complete"})
    assert {each["after_kill"] for each in seen} == {"absent", "complete"}
    assert all(each["aside"] == [] for each in seen)
    assert {"mkdir", "pwrite, half", "fdatasync", "syncfs"} <= {each["step"] for each in seen}


@pytest.mark.long
def test_killed_between_each_two_steps_while_setting_aside(
    volumes: Path, tiny_agent: Agent
) -> None:
    """After kill and next run, the earlier library is untouched, or whole under a new name."""
    seen = _run_driver(volumes, tiny_agent, "set-aside")

    _check(seen, {"old", "absent", "complete"})
    assert {each["after_kill"] for each in seen} == {"old", "absent", "complete"}
    for each in seen:
        assert each["aside"] == [OLD], each
        assert each["after_kill"] != "absent" or each["aside_after_kill"] == [OLD], each


@pytest.mark.long
def test_killed_between_each_two_steps_of_a_take_over(volumes: Path, tiny_agent: Agent) -> None:
    """If the library changed since an interrupted run, no old content arrives or stays."""
    first = volumes / "first"
    first.mkdir(parents=True)
    with cut_at("initpuller.volume.staging.staging.Staging.finish"):
        pull(first, tiny_agent)
    library = tiny_agent.library
    (library / "Plex" / "thumb").unlink()
    (library / "Plex" / "new").write_bytes(b"new")
    (library / "Plex" / "Metadata" / "poster").write_bytes(b"other")

    _check(_run_driver(volumes, tiny_agent, "skip"), {"absent", "complete"})


@pytest.mark.long
def test_killed_between_each_two_steps_of_taking_back_a_publication(
    volumes: Path, tiny_agent: Agent
) -> None:
    """A renamed but outdated library is brought up to date by the next run."""
    first = volumes / "first"
    (first / "Library").mkdir(parents=True)
    (first / "Library" / "mark").write_text(OLD)
    with cut_at("initpuller.volume.publish.publish.seal"):
        pull(first, tiny_agent, "--on-existing", "set-aside")
    (tiny_agent.library / "Plex" / "Metadata" / "poster").write_bytes(b"other")

    seen = _run_driver(volumes, tiny_agent, "set-aside", "taker")

    _check(
        seen,
        {"partial", "absent", "old", "complete"},
        {"rename_noreplace", "rename", "fsync", "unlink", "save_record"},
    )
    assert {each["after_kill"] for each in seen[:-1]} == {"partial", "absent", "old"}
    for each in seen:
        assert each["aside"] == [OLD], each


@pytest.mark.long
def test_killed_between_each_two_steps_of_a_frame(volumes: Path, tiny_agent: Agent) -> None:
    """A puller that is killed while it unpacks a frame leaves what the next run repairs."""
    seen = _run_driver(volumes, tiny_agent, "skip", "thread")

    _check(seen, {"absent", "complete"}, {"mkdir", "pwrite, half"})


class Killer:
    """SIGKILL at the ``number``-th durable step of a process, named in ``report``.

    Steps are counted from the first record on; or, if ``late``, from where publication begins; or,
    if ``who`` is a taker, while a publication is taken back. Those of the thread that unpacks
    frames are counted if ``who`` is that thread, and no others then.
    """

    def __init__(self, number: int, report: Path, who: str, *, late: bool) -> None:
        self._left: int | None = None
        self._number = number
        self._report = report
        self._begin = (
            (pending, "unpublish")
            if who == "taker"
            else (publish, "prepare")
            if late
            else (staging, "begin")
        )
        self._is_brief = who == "taker"
        self._is_thread = who == "thread"
        self._write = os.pwrite

    def arm(self) -> None:
        """Intercept everything that makes data durable and does not depend on the clock."""
        transfer.BATCH = 1
        place, name = self._begin
        setattr(place, name, self._counting(getattr(place, name)))
        os.pwrite = self._torn  # type: ignore[assignment]
        for name in ("rename", "unlink", "rmdir", "mkdir", "fsync", "fdatasync", "symlink", "link"):
            setattr(os, name, self._killing(name, getattr(os, name)))
        for each in (
            journal,
            publish,
            pull_record,
            staging,
            unpublish,
        ):
            for name in ("syncfs", "rename_noreplace", "save_record"):
                if hasattr(each, name):
                    setattr(each, name, self._killing(name, getattr(each, name)))

    def _is_now(self, name: str) -> bool:
        is_thread = threading.current_thread().name == THREAD
        if self._left is None or is_thread is not self._is_thread:
            return False
        self._left -= 1
        return self._left < 0 and self._report.write_text(name) > 0

    def _counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: object, **kwargs: object) -> object:
            self._left = self._number
            answer = real(*args, **kwargs)
            if self._is_brief:
                self._left = None
            return answer

        return wrapper

    def _killing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: object, **kwargs: object) -> object:
            if self._is_now(name):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return wrapper

    def _torn(self, fd: int, data: Buffer, offset: int) -> int:
        if self._is_now("pwrite, half"):
            self._write(fd, memoryview(data)[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._write(fd, data, offset)


def _in_child(log: Path, arguments: list[str], killer: Killer | None) -> int:
    """Run ``plexodus-puller`` in a child, and return its exit code, or minus its signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        if killer is not None:
            killer.arm()
        with patch.object(sys, "argv", ["plexodus-puller", *arguments]):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def _what_is(place: Path, library: Path, old: dict[str, Any]) -> str:
    if not os.path.lexists(place):
        return "absent"
    if (place / "mark").exists():
        return "old" if fingerprint(place) == old else "old, damaged"
    return "partial" if rsync_differences(library, place) else "complete"


def _aside(target: Path) -> list[str]:
    return [(each / "mark").read_text() for each in target.glob("Library.set-aside-*")]


def _drive(base: Path, on_existing: str, library: Path, who: str) -> None:
    forked.load("plexodus-puller")  # once, and not in each child
    number, killed = 0, True
    while killed:
        target = base / f"volume{number}"
        if (base / "first").exists():
            subprocess.run(["cp", "-a", base / "first", target], check=True)  # with its owners
        else:
            target.mkdir(parents=True)
        old: dict[str, Any] = {}
        if on_existing == "set-aside":
            if not (base / "first").exists():
                (target / "Library").mkdir()
                (target / "Library" / "mark").write_text(OLD)
            aside = next(target.glob("Library.set-aside-*"), target / "Library")
            old = fingerprint(aside)
        report, log = base / f"step{number}", base / f"log{number}"
        arguments = ["pull", "--no-cutover", "--target", str(target), "--jobs", "1"]
        arguments += ["--on-existing", on_existing]
        killer = Killer(number, report, who, late=on_existing == "set-aside")
        _in_child(log, arguments, killer)
        killed = report.exists()
        seen: dict[str, Any] = {"killed": killed}
        seen["step"] = report.read_text() if killed else ""
        seen["after_kill"] = _what_is(target / "Library", library, old)
        seen["aside_after_kill"] = _aside(target)
        seen["code"] = _in_child(log, arguments, None)
        seen["log"] = log.read_text()[-600:] if seen["code"] else ""
        seen["differences"] = rsync_differences(library, target / "Library")
        seen["sums"] = sums_hold(target)
        seen["left"], seen["aside"] = sorted(left_of_pull(target)), _aside(target)
        records = (target / ".plexodus").rglob("*")
        owned = (target / "Library", target / ".plexodus", *records)
        seen["owners"] = list({each.stat().st_uid for each in owned})
        sys.stdout.write(json.dumps(seen) + "\n")
        shutil.rmtree(target)
        number += 1


if __name__ == "__main__":
    _drive(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
