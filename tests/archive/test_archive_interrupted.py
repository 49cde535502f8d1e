"""Downloads are interrupted by killed agents and changed libraries."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from rig.archive import downloads
from rig.archive.downloads import (
    GZIP_FIRST,
    announced_digest,
    aria2,
    aria2_words,
    curl,
    curl_words,
    redirected,
    shell,
    wait_for_size,
    whole_seconds,
)
from rig.oracle import rsync_differences

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

MIB = 1024 * 1024
LIBRARY = "/plex-library.tar.gz"
SLOWLY = ("--limit-rate", "12M")
CUT = (18, 56)
"""How curl ends when the rest of an answer does not come: partial file, failure to receive."""
ANOTHER = ("--interface", "127.0.0.2")
"""Makes curl another client: the whole of 127.0.0.0/8 is this machine."""


def _begin(agent: Agent, path: str, into: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start ``curl -C -``, slow enough to be interrupted half way."""
    words = curl_words(agent, path, *SLOWLY, "-C", "-", "-o", into, *options)
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


def _begin_and_kill(agent: Agent, path: str, into: Path, at: int) -> None:
    """Start a client and kill it when it has ``at`` bytes."""
    process = _begin(agent, path, into)
    wait_for_size(into, at, process)
    process.kill()
    process.wait()


def _is_library(archive: Path, library: Path, place: Path) -> bool:
    """Return whether GNU tar extracts exactly ``library`` from the archive."""
    place.mkdir()
    done = shell("tar -xpf $1", archive, cwd=place)
    assert (done.code, done.err) == (0, "")
    return rsync_differences(library, place / "Library") == []


@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_agent_killed_three_times(agent: Agent, library: Path, suffix: str, tmp_path: Path) -> None:
    """After each of three kills curl reports it, and resumes where it was."""
    whole_seconds(library)
    path = downloads.archive(agent.scan().id, suffix)
    file = tmp_path / "got"
    for _ in range(3):
        so_far = file.stat().st_size if file.exists() else 0
        process = _begin(agent, path, file)
        wait_for_size(file, so_far + 5 * MIB, process)
        agent.kill()
        assert process.wait(timeout=60) in CUT
        agent.start()

    assert curl(agent, path, "-C", "-", "-o", file).code == 0

    assert downloads.digest(file) == announced_digest(agent, path)
    assert _is_library(file, library, tmp_path / "opened")


def test_agent_killed_under_one_curl(agent: Agent, library: Path, tmp_path: Path) -> None:
    """``--retry`` resumes in one run, through the redirect, also while the agent is down."""
    whole_seconds(library)
    file = tmp_path / "got"
    retry = ("--retry", "30", "--retry-all-errors", "--retry-delay", "1")
    process = _begin(agent, LIBRARY, file, *retry)
    wait_for_size(file, 8 * MIB, process)
    agent.kill()
    time.sleep(1)  # the length of the outage
    agent.start()

    assert process.wait(timeout=120) == 0

    assert downloads.digest(file) == announced_digest(agent, LIBRARY)
    assert _is_library(file, library, tmp_path / "opened")


def test_agent_killed_under_eight_connections(agent: Agent, library: Path, tmp_path: Path) -> None:
    """``aria2c`` fails, and a new start completes the file correctly."""
    whole_seconds(library)
    announced = announced_digest(agent, LIBRARY)
    file, control = tmp_path / "got", tmp_path / "got.aria2"
    limits = ("--max-overall-download-limit=12M", "--use-head=true", "--auto-save-interval=1")
    process = subprocess.Popen(
        aria2_words(agent, LIBRARY, file, *limits), stdout=subprocess.DEVNULL
    )
    wait_for_size(control, 1, process)
    agent.kill()
    assert process.wait(timeout=120) != 0
    assert control.exists()
    agent.start()

    assert aria2(agent, LIBRARY, file).code == 0

    assert not control.exists()
    assert downloads.digest(file) == announced
    assert _is_library(file, library, tmp_path / "opened")


def test_library_changed_behind_the_download(agent: Agent, library: Path, tmp_path: Path) -> None:
    """A resumed download is of the first archive, and a new one of the new library."""
    file, new = tmp_path / "begun", tmp_path / "new"
    first = redirected(agent)
    _begin_and_kill(agent, LIBRARY, file, 9 * MIB)
    (library / "folder00" / "Contents" / "file00").write_bytes(b"changed, and already sent")
    (library / "added").write_bytes(b"new")
    second = redirected(agent, *ANOTHER)
    assert second != first

    assert redirected(agent, "-r", "5-") == first
    agent.kill()
    agent.start()
    assert redirected(agent, "-r", "5-") == first
    assert curl(agent, LIBRARY, "-C", "-", "-o", file).code == 0
    assert curl(agent, LIBRARY, "-o", new, *ANOTHER).code == 0

    listed = [shell("tar -tzf $1", each).out.splitlines() for each in (file, new)]
    assert ["Library/added" in names for names in listed] == [False, True]
    assert downloads.digest(new) == announced_digest(agent, second)
    sums = tmp_path / "SHA256SUMS"
    for archive, options in ((file, ()), (new, ANOTHER)):
        place = tmp_path / f"opened-{archive.name}"
        place.mkdir()
        assert shell("tar -xpf $1", archive, cwd=place).code == 0
        assert curl(agent, "/SHA256SUMS", "-o", sums, *options).code == 0
        checked = shell("sha256sum --check --quiet --strict $1", sums, cwd=place)
        assert checked.code == 0, checked.out


def test_archive_that_was_begun_is_not_kept_any_more(
    agent: Agent, library: Path, tmp_path: Path
) -> None:
    """A download of a discarded snapshot is refused, never continued with another."""
    file = tmp_path / "begun"
    _begin_and_kill(agent, LIBRARY, file, 6 * MIB)
    begun = file.stat().st_size
    newest = ""
    for number in range(5):
        (library / "folder00" / "Contents" / "file00").write_bytes(b"%d" % number)
        newest = redirected(agent, *ANOTHER)

    for options in ((), ("-r", "5-")):
        refused = downloads.run(
            *["curl", "-sk", "-u", f"x:{agent.token}", "-w", "%{http_code}", "-r", "7-"],
            *options,
            f"{agent.url}{LIBRARY}",
        )
        assert refused.out.endswith("404")
        assert "urn:plexodus:no-such-snapshot" in refused.out
    assert curl(agent, LIBRARY, "-C", "-", "-o", file).code == 22
    assert file.stat().st_size == begun
    assert redirected(agent) == newest
    assert redirected(agent, "-r", "5-") == newest


@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_file_changed_ahead_of_the_download(
    agent: Agent, library: Path, suffix: str, tmp_path: Path
) -> None:
    """The transfer fails, the next request gets the reason, and the received part stays."""
    path = downloads.archive(agent.scan().id, suffix)
    file, victim = tmp_path / "begun", library / "larger"
    process = _begin(agent, path, file)
    wait_for_size(file, 2 * MIB, process)
    info = victim.stat()
    with victim.open("rb+") as changed:
        changed.write(b"changed")
    os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns))

    assert process.wait(timeout=60) in CUT

    begun = file.stat().st_size
    assert 2 * MIB <= begun < sum(each.stat().st_size for each in library.rglob("*"))
    for options in ((), ("-r", f"{begun}-")):
        words = ["curl", "-sk", "-u", f"x:{agent.token}", *options, f"{agent.url}{path}"]
        problem = json.loads(downloads.run(*words).out)
        assert problem["status"] == 409
        assert problem["type"] == "urn:plexodus:source-changed"
        assert problem["paths"] == ["Library/larger"]
    assert curl(agent, path, "-C", "-", "-o", file).code == 22
    assert file.stat().st_size == begun
    tried = shell('"$@" | tar xz', *curl_words(agent, path), cwd=tmp_path)
    assert tried.code != 0
    assert redirected(agent) != path


def test_pipe_breaks_when_a_file_changes(agent: Agent, library: Path, tmp_path: Path) -> None:
    """With ``curl | tar``, both the pipe and tar fail if a file changes."""
    path = downloads.archive(agent.scan().id, "tar.gz")
    words = ["bash", "-o", "pipefail", "-c", '"$@" | tar xz', "bash"]
    process = subprocess.Popen(
        [*words, *curl_words(agent, path, *SLOWLY)], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    wait_for_size(tmp_path / "Library" / "folder00" / "hard", 1 * MIB, process)
    with (library / "larger").open("ab") as changed:
        changed.write(b"more")

    assert process.wait(timeout=60) != 0
    assert (
        not (tmp_path / "Library" / "larger").exists()
        or (tmp_path / "Library" / "larger").stat().st_size < (library / "larger").stat().st_size
    )
