"""A volume that holds foreign content, and pulls that collide with each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, Puller, clean_environment, running
from rig.volume import RECEIPT_FILES, cut_at, fingerprint, grow_tiny, left_of_pull, pull
from rig.waiting import wait_until

from initpuller.volume.publish import publish
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.receipt import Receipt

COMMIT = "initpuller.volume.staging.staging.Staging.commit"
FINISH = "initpuller.volume.staging.staging.Staging.finish"
SET_ASIDE = ("--on-existing", "set-aside")
_FAILS_AT_ITS_RECEIPT = """
import errno, os, sys, time
from pathlib import Path
from initpuller.__main__ import main
from initpuller.volume.publish import publish

save, drop, mark = publish.save_record, publish._drop_receipt, Path(sys.argv[1])

def failing(*args):
    save(*args)
    raise OSError(errno.EIO, os.strerror(errno.EIO))

def slow(*args):
    mark.touch()
    while mark.exists():
        time.sleep(0.01)
    drop(*args)

publish.save_record, publish._drop_receipt = failing, slow
sys.argv[1:] = ["pull", *sys.argv[2:]]
main()
"""
"""A pull whose disk fails when the receipt has its name, and which takes it back slowly."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    """Start two agents for different libraries of the same name."""
    made = []
    for number in range(2):
        place = tmp_path_factory.mktemp(f"agent{number}")
        library = grow_tiny(place / "vm" / "Library", seed=number)
        made.append(Agent(place / "state", library, place / "agent.log"))
        made[-1].pair()
    (made[1].library / "only there").write_bytes(b"of the other library")
    with running(made[0]), running(made[1]):
        yield made[0], made[1]


@pytest.fixture
def ours(agents: tuple[Agent, Agent]) -> Agent:
    """Return the agent whose library is to arrive."""
    return agents[0]


@pytest.fixture
def theirs(agents: tuple[Agent, Agent]) -> Agent:
    """Return the agent of the other library."""
    return agents[1]


def _is_whole(target: Path, agent: Agent) -> None:
    assert rsync_differences(agent.library, target / "Library") == []
    assert sums_hold(target)
    assert left_of_pull(target) == RECEIPT_FILES


def _folder(place: Path) -> None:
    (place / "below").mkdir(parents=True)
    (place / "below" / "file").write_text("not ours")
    os.utime(place / "below", ns=(1, 1))


def _file(place: Path) -> None:
    place.write_text("not ours")
    os.utime(place, ns=(1, 1))


def _symlink(place: Path) -> None:
    _folder(place.parent.parent / "elsewhere")
    place.symlink_to("../elsewhere")


def _dangling(place: Path) -> None:
    place.symlink_to("/nowhere/at/all")


EXISTING = pytest.mark.parametrize("make", [_folder, _file, _symlink, _dangling])


@EXISTING
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), ExitCode.OK, "A LIBRARY THAT IS NOT OURS"),
        (("--on-existing", "fail"), ExitCode.CONFLICT, "not ours"),
    ],
)
def test_existing_library_is_left_alone(
    target: Path,
    ours: Agent,
    make: Callable[[Path], None],
    options: tuple[str, ...],
    code: ExitCode,
    says: str,
) -> None:
    """A foreign folder, file or symlink stays exactly as it was, and no request is made."""
    make(target / "Library")
    before, elsewhere = fingerprint(target / "Library"), fingerprint(target.parent)
    requests = ours.requests()

    done = pull(target, ours, *options)

    assert done.code == code, done.text
    assert says in done.text
    assert str(target / "Library") in done.text
    assert fingerprint(target / "Library") == before
    assert {name: elsewhere[name] for name in elsewhere if name.startswith("elsewhere")} == {
        name: what
        for name, what in fingerprint(target.parent).items()
        if name.startswith("elsewhere")
    }
    assert ours.requests() == requests


@EXISTING
def test_existing_library_is_set_aside_on_request(
    target: Path, ours: Agent, make: Callable[[Path], None]
) -> None:
    """Foreign content is renamed whole to the name in the log, and a symlink's target stays."""
    make(target / "Library")
    before = fingerprint(target / "Library")

    done = pull(target, ours, *SET_ASIDE)

    assert done.code == ExitCode.OK, done.text
    _is_whole(target, ours)
    (told,) = [line["set_aside"] for line in done.log if line["event"] == "published"]
    assert fingerprint(target / told) == before
    if make is _symlink:
        assert (target.parent / "elsewhere" / "below" / "file").read_text() == "not ours"


@pytest.fixture
def first(puller: Puller) -> Iterator[subprocess.Popen[bytes]]:
    """Run a puller that holds the volume, and let it finish after the test."""
    process = puller.begin()
    deadline = time.monotonic() + 30
    while not (puller.target / ".plexodus" / "state.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    yield process
    process.send_signal(signal.SIGCONT)  # unless it has ended
    puller.finished(process)


def test_two_pullers_at_once(
    agent: Agent, target: Path, library: Path, first: subprocess.Popen[bytes],
    puller: Puller, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A second puller waits, then exits 11 with the reason, and the first completes."""
    monkeypatch.setattr("initpuller.pull.recipe._LOCK_SECONDS", 0.5)
    monkeypatch.setattr("initpuller.pull.recipe._GLANCE", 0.1)
    second = pull(target, agent)

    assert second.code == ExitCode.UNREACHABLE, second.text
    assert "another puller is at work on this volume" in second.reason()
    os.kill(first.pid, signal.SIGCONT)
    assert puller.finished(first).code == ExitCode.OK
    assert rsync_differences(library, target / "Library") == []


def test_pod_waits_for_the_lock_of_its_predecessor(
    agent: Agent, target: Path, library: Path, first: subprocess.Popen[bytes]
) -> None:
    """If the first puller ends slowly after SIGTERM, the second waits and resumes its state."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("initpuller.pull.recipe._GLANCE", 0.1)
        os.kill(first.pid, signal.SIGTERM)
        threading.Timer(1.0, os.kill, (first.pid, signal.SIGCONT)).start()
        second = pull(target, agent)

    assert second.code == ExitCode.OK, second.text
    assert [line for line in second.log if "waiting" in line["event"]]
    assert rsync_differences(library, target / "Library") == []


def test_name_is_taken_again_after_the_first_was_set_aside(target: Path, ours: Agent) -> None:
    """After a kill between the two renames, new foreign content is set aside too."""
    _file(target / "Library")
    with cut_at("initpuller.volume.publish.publish.rename_noreplace"):
        pull(target, ours, *SET_ASIDE)
    _file(target / "Library")
    done = pull(target, ours, *SET_ASIDE)  # in the same second, too

    assert done.code == ExitCode.OK, done.text
    assert len(list(target.glob("Library.set-aside-*"))) == 2
    _is_whole(target, ours)


def test_receipt_that_appears_during_the_wait_for_the_lock_ends_the_run(
    target: Path, ours: Agent
) -> None:
    """If another puller finishes before the lock is taken, nothing is requested or fetched."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("initpuller.pull.recipe.finished", lambda _layout, **_options: None)
        assert pull(target, ours).code == ExitCode.OK
        requests, before = ours.requests(), fingerprint(target / "Library")

        done = pull(target, ours)

    assert done.code == ExitCode.OK, done.text
    assert ours.requests() == requests
    assert fingerprint(target / "Library") == before


def test_receipt_that_another_puller_takes_back(
    agent: Agent, puller: Puller, target: Path, library: Path
) -> None:
    """While that puller has the volume, receipt and library prove nothing: the pull waits."""
    mark = target.with_name("mark")
    command = [sys.executable, "-c", _FAILS_AT_ITS_RECEIPT, str(mark), "--target", str(target)]
    environment = clean_environment() | puller.environment()
    failing = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=environment
    )
    wait_until(mark.exists, meanwhile=failing)
    assert (target / ".plexodus" / "receipt.json").exists()
    assert rsync_differences(library, target / "Library") == []
    process = puller.begin()
    wait_until(lambda: puller.log.stat().st_size)
    mark.unlink()
    assert failing.wait(60) == ExitCode.STORAGE
    done = puller.finished(process)
    assert done.code == ExitCode.OK, done.text
    _is_whole(target, agent)


@pytest.mark.parametrize("options", [(), ("--rehearse",)], ids=["move", "rehearse"])
def test_folders_in_place_of_a_rehearsal_that_is_half_taken_back(
    target: Path, ours: Agent, options: tuple[str, ...]
) -> None:
    """Kubernetes has made them again. The copy in staging is not taken for a leftover."""
    assert pull(target, ours, "--rehearse").code == ExitCode.OK
    with cut_at("initpuller.volume.publish.unpublish.taken_back"):
        pull(target, ours)
    (target / "Library" / "Application Support").mkdir(parents=True)

    done = pull(target, ours, *options)

    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(ours.library, target / "Library") == []
    told = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert told["rehearsal"] is bool(options)


def test_receipt_with_a_file_in_place_of_its_library(target: Path, ours: Agent) -> None:
    """A receipt beside a foreign file exits 14 without a request, and the file stays."""
    assert pull(target, ours).code == ExitCode.OK
    (target / "Library").rename(target / "moved")
    _file(target / "Library")
    requests, before = ours.requests(), fingerprint(target)

    done = pull(target, ours, *SET_ASIDE)

    assert done.code == ExitCode.CONFLICT, done.text
    assert "is gone" in done.reason()
    assert ours.requests() == requests
    assert fingerprint(target / "Library")["."] == before["Library"]


def test_staging_of_another_library_is_not_mixed_in(
    target: Path, ours: Agent, theirs: Agent
) -> None:
    """Foreign staging exits 14 naming both libraries, and the other library's pull resumes."""
    with cut_at(COMMIT, 3):
        pull(target, theirs)
    before, asked = fingerprint(target / ".plexodus"), len(theirs.frames_asked())

    refused = pull(target, ours)

    assert refused.code == ExitCode.CONFLICT, refused.text
    assert str(ours.library) in refused.reason()
    assert str(theirs.library) in refused.reason()
    assert fingerprint(target / ".plexodus").items() >= before.items() - {
        (name, before[name]) for name in (".", "lock")
    }
    done = pull(target, theirs)
    assert done.code == ExitCode.OK, done.text
    assert len(theirs.frames_asked()) - asked < 4
    _is_whole(target, theirs)


def test_staging_of_another_library_is_set_aside_when_told(
    target: Path, ours: Agent, theirs: Agent
) -> None:
    """Foreign staging is renamed whole, and none of it is in the new library."""
    with cut_at(FINISH):
        pull(target, theirs)
    staging = target / ".plexodus" / "staging"
    before = fingerprint(staging)

    done = pull(target, ours, *SET_ASIDE)

    assert done.code == ExitCode.OK, done.text
    (aside,) = staging.parent.glob("staging.set-aside-*")
    assert fingerprint(aside) == before
    assert rsync_differences(ours.library, target / "Library") == []
    assert left_of_pull(target) == {*RECEIPT_FILES, aside.name}


def test_library_appears_while_a_pull_is_under_way(target: Path, ours: Agent) -> None:
    """A library that appears during a pull exits 14 and stays, and no frame is discarded."""
    real = publish.publish

    def appear(record: PullRecord, permit: Callable[[], None]) -> Receipt:
        _folder(target / "Library")
        return real(record, permit)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish, "publish", appear)
        refused = pull(target, ours, *SET_ASIDE)
    before, asked = fingerprint(target / "Library"), ours.frames_asked()

    assert refused.code == ExitCode.CONFLICT, refused.text
    assert "has taken the library's name meanwhile" in refused.reason()
    assert sorted(before) == [".", "below", "below/file"]
    assert not (target / ".plexodus" / "receipt.json").exists()
    done = pull(target, ours, *SET_ASIDE)
    assert done.code == ExitCode.OK, done.text
    assert ours.frames_asked() == asked
    (aside,) = target.glob("Library.set-aside-*")
    assert fingerprint(aside) == before
    _is_whole(target, ours)
