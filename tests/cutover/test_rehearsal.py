"""``pull --rehearse``: a copy to try while Plex keeps running, and a move that builds on it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies
from rig.cutover.deltas import RACY, frames
from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import SERVER
from rig.plex.standin import DATABASE
from rig.programs import Agent, Puller
from rig.volume import RECEIPT_FILES, cut_at, fingerprint, grow_small, left_of_pull, pull

from shared.program.exit_codes import ExitCode
from shared.wire.protocol import SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.plex.commands import PlexCommands

RECORDS = ("manifest-", "journal-", "digests-")


def rows(server: Path) -> int:
    """Return how many rows the stand-in has written into a database that SQLite finds sound."""
    with closing(sqlite3.connect(f"file:{server / DATABASE}?immutable=1", uri=True)) as database:
        (found,) = database.execute("SELECT count(*) FROM standin").fetchone()
        assert database.execute("PRAGMA integrity_check(standin)").fetchone() == ("ok",)
    return int(found)


def receipt(target: Path) -> dict[str, object]:
    """Return the receipt on the volume."""
    told = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert isinstance(told, dict)
    return told


def test_rehearsed_while_it_writes_then_moved(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex is not stopped for a sound copy, and changes to the copy do not move."""
    done = puller.pull("--rehearse")

    assert done.code == 0, done.text
    assert plex.story == ["start"]
    assert plex.is_running()
    copy = puller.target / "Library" / SERVER
    before = rows(copy)
    assert before > 0
    assert receipt(puller.target)["rehearsal"] is True
    assert sums_hold(puller.target)
    beside = [copy / f"{DATABASE}{end}" for end in ("-wal", "-shm", "-journal")]
    assert not any(path.exists() for path in beside)
    assert json.loads(puller.run("status", "--json").stdout)["phase"] == "rehearsed"
    assert puller.run("verify").returncode == 0
    asked = len(agent.requests())
    assert puller.pull("--rehearse").code == 0
    assert len(agent.requests()) == asked

    try_on(copy)
    done = puller.pull()

    assert done.code == 0, done.text
    assert plex.story == ["start", "stop"]
    assert rsync_differences(library, puller.target / "Library") == []
    assert sums_hold(puller.target)
    assert left_of_pull(puller.target) == RECEIPT_FILES
    assert receipt(puller.target)["rehearsal"] is False
    assert rows(copy) > before


def try_on(server: Path) -> None:
    """Change a library as a trial Plex does: rows, a preference, new and removed files."""
    with closing(sqlite3.connect(server / DATABASE)) as database, database:
        database.execute("UPDATE standin SET what = 'watched in the new place'")
    (server / "Preferences.xml").write_text("<Preferences/>")
    (server / "Metadata" / "tried").write_text("only here")
    next(path for path in sorted(server.rglob("*.jpg")) if not path.is_symlink()).unlink()


def test_only_what_was_tried_is_brought_again(
    new_agent: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """A move after a rehearsal fetches only frames of changed files."""
    time.sleep(RACY)
    agent = new_agent(library)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--rehearse").code == 0
    all_frames, _ = frames(agent)
    server = target / "Library" / SERVER
    (server / "Preferences.xml").write_text("<Preferences/>")

    assert pull(target, agent).code == 0

    assert frames(agent)[0] - all_frames <= all_frames // 3
    assert rsync_differences(library, target / "Library") == []


STEPS = {
    "published": "initpuller.volume.publish.publish.seal",
    "renamed back": "initpuller.volume.publish.unpublish._forget_changed",
    "forgotten": "initpuller.volume.publish.unpublish.taken_back",
}


@pytest.mark.parametrize("option", [(), ("--rehearse",)], ids=["move", "rehearse"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_on_the_way_there_and_back(
    new_agent: Callable[[Path], Agent],
    library: Path,
    target: Path,
    step: str,
    option: tuple[str, ...],
) -> None:
    """After a kill, the next pull completes what it was asked for."""
    agent = new_agent(library)
    agent.pair()
    agent.start()
    if step != "published":
        assert pull(target, agent, "--rehearse").code == 0
    with cut_at(STEPS[step]):
        pull(target, agent, *(("--rehearse",) if step == "published" else ()))

    done = pull(target, agent, *option)

    assert done.code == 0, done.text
    differences = rsync_differences(library, target / "Library")
    assert [each for each in differences if not (option and ".db" in each)] == []
    assert sums_hold(target)
    assert receipt(target)["rehearsal"] is bool(option)
    records = left_of_pull(target) - RECEIPT_FILES
    assert all(each.startswith((*RECORDS, "state.json")) for each in records), records
    assert bool(records) is bool(option)


@pytest.fixture
def replaced(
    new_agent: Callable[[Path], Agent], library: Path, target: Path
) -> tuple[Agent, dict[str, tuple[int, int, int, bytes]]]:
    """Replace a published rehearsal by another library; return agent and fingerprint of that."""
    agent = new_agent(library)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--rehearse").code == 0
    shutil.rmtree(target / "Library")
    shutil.copytree(library, target / "Library", symlinks=True, copy_function=shutil.copyfile)
    return agent, fingerprint(target / "Library")


@pytest.mark.parametrize("options", [(), ("--on-existing", "fail"), ("--until", "ready")])
def test_another_library_in_place_of_a_rehearsal(
    replaced: tuple[Agent, dict[str, tuple[int, int, int, bytes]]],
    target: Path,
    options: tuple[str, ...],
) -> None:
    """It is refused with exit code 14, and nothing of it is touched."""
    agent, before = replaced
    for _ in range(2):
        done = pull(target, agent, *options)
        assert done.code == ExitCode.CONFLICT, done.text
        assert "is not the rehearsal" in done.reason()
        assert fingerprint(target / "Library") == before
        assert receipt(target)["rehearsal"] is True


@pytest.mark.parametrize("cut", ["taken_back", "drop_files"])
def test_another_library_in_place_of_a_rehearsal_is_set_aside(
    replaced: tuple[Agent, dict[str, tuple[int, int, int, bytes]]],
    library: Path,
    target: Path,
    cut: str,
) -> None:
    """It stays until the move is published, even if a pull is killed on the way."""
    agent, before = replaced
    with cut_at(f"initpuller.volume.publish.unpublish.{cut}"):
        pull(target, agent, "--on-existing", "set-aside")
    assert fingerprint(target / "Library") == before

    done = pull(target, agent, "--on-existing", "set-aside")

    assert done.code == 0, done.text
    assert rsync_differences(library, target / "Library") == []
    (aside,) = target.glob("Library.set-aside-*")
    assert fingerprint(aside) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_no_room_for_the_copies(
    new_agent: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """Missing space for database copies is reported with amount and place before any copy."""
    agent = new_agent(library)
    mount = ["mount", "-t", "tmpfs", "plexodus-test", str(agent.state), "-o"]
    agent.state.mkdir()
    subprocess.run([*mount, "size=48m,mode=700"], check=True)
    try:
        agent.pair()
        agent.start()
        refused = pull(target, agent, "--rehearse")
        assert refused.code == ExitCode.STORAGE, refused.text
        assert "copies of the databases need" in refused.reason()
        assert not list((agent.state / "snapshots").iterdir())
        assert agent.frames_asked() == []
        subprocess.run([*mount, "remount,size=200m,mode=700"], check=True)
        done = pull(target, agent, "--rehearse")
        assert done.code == 0, done.text
    finally:
        agent.kill()
        subprocess.run(["umount", agent.state], check=True)


def test_copies_go_with_the_next_scan(
    new_agent: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """The next scan removes the database copies, so the state folder does not fill up."""
    agent = new_agent(library)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--rehearse").code == 0
    assert len(list((agent.state / "snapshots").glob("*/databases/*"))) >= 2

    assert pull(target, agent).code == 0

    assert not list((agent.state / "snapshots").glob("*/databases"))


def test_nothing_but_one_of_the_two(target: Path, tmp_path: Path) -> None:
    """``--rehearse`` and ``--until ready`` are distinguished."""
    done = Puller(target, tmp_path / "log", "").pull("--rehearse", "--until", "ready")
    assert done.code == ExitCode.CONFIGURATION
    assert "--until ready" in done.text


def test_damage_to_what_is_kept_is_mended_while_plex_runs(
    puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A live pass finds damage to kept content, so that Plex is stopped only once."""
    time.sleep(RACY)
    assert puller.pull("--until", "ready").code == 0
    staged = puller.target / ".plexodus" / "staging" / "Library" / SERVER
    damaged = next(path for path in sorted(staged.rglob("*.jpg")) if not path.is_symlink())
    times = damaged.stat()
    damaged.write_bytes(bytes(times.st_size))
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))

    done = puller.pull()

    assert done.code == 0, done.text
    assert plex.story == ["start", "stop"]
    assert damaged.name in done.text
    assert rsync_differences(library, puller.target / "Library") == []


@pytest.mark.parametrize("is_removed", [False, True], ids=["changed", "removed"])
def test_damage_to_what_a_killed_run_left_is_mended_while_plex_runs(
    puller: Puller,
    plex: PlexCommands,
    library: Path,
    is_removed: bool,  # noqa: FBT001
) -> None:
    """No delta kept the damaged file, and still Plex is stopped only once."""
    time.sleep(RACY)
    preseed = "--until", "ready", "--jobs", "1"
    dies(puller, "initpuller.volume.staging.staging", "Staging.commit", *preseed, call=2)
    staged = puller.target / ".plexodus" / "staging" / "Library" / SERVER
    damaged = next(path for path in sorted(staged.rglob("*.jpg")) if not path.is_symlink())
    times = damaged.stat()
    damaged.unlink()
    if not is_removed:
        damaged.write_bytes(bytes(times.st_size))
        os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))

    done = puller.pull()

    assert done.code == 0, done.text
    assert plex.story == ["start", "stop"]
    assert damaged.name in done.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_rehearsed_again_and_nothing_has_changed(
    new_agent: Callable[[Path], Agent], tmp_path: Path
) -> None:
    """An equal scan without a database has the same name, and is served again."""
    agent = new_agent(grow_small(tmp_path / "plain" / "Library"))
    agent.pair()
    agent.start()
    first = _rehearsal(agent)
    agent.scan()
    with pytest.raises(AssertionError, match="no-such-snapshot"):
        agent.get(f"{SNAPSHOTS}/{first}/SHA256SUMS")
    again = _rehearsal(agent)
    assert again == first
    assert agent.get(f"{SNAPSHOTS}/{again}/SHA256SUMS")


def _rehearsal(agent: Agent) -> str:
    """Return the name of a new snapshot."""
    answer = json.loads(agent.ask("POST", SNAPSHOTS, b'{"kind":"rehearsal"}'))
    return str(answer["id"])
