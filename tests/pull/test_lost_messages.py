"""Messages of a pull are lost: its exit code is still about the library."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
from rig.oracle import rsync_differences
from rig.waiting import wait_until

if TYPE_CHECKING:
    from rig.programs import Agent, Puller

_PULL = """
import sys, time
from pathlib import Path
from initpuller.__main__ import main
from initpuller.volume.publish import publish

real, mark = publish.publish, Path(sys.argv.pop(1))

def published(record, _permit):
    mark.touch()
    while mark.exists():
        time.sleep(0.01)
    return real(record, lambda: None)  # the wait above takes long

publish.publish = published
main()
"""
"""A pull that waits before the library gets its name, until nobody listens any more."""


def begin(puller: Puller, out: int | BinaryIO, err: int | BinaryIO) -> subprocess.Popen[bytes]:
    """Start such a pull, and return when it waits."""
    mark = puller.target / "mark"
    words = [sys.executable, "-c", _PULL, mark, *puller.command()[1:]]
    environment = puller.environment() | {"TERM": "xterm"}
    process = subprocess.Popen(words, stdout=out, stderr=err, env=environment)
    wait_until(mark.exists, meanwhile=process)
    return process


def published(puller: Puller, process: subprocess.Popen[bytes], library: Path) -> None:
    """Let the pull publish, and assert that it succeeds."""
    (puller.target / "mark").unlink()
    assert process.wait(timeout=60) == 0
    assert rsync_differences(library, puller.target / "Library") == []
    assert (puller.target / ".plexodus" / "receipt.json").exists()


def test_reader_of_the_log_ends_during_the_publication(puller: Puller, library: Path) -> None:
    """``pull 2>&1 | tee log`` after Ctrl-C: the library is there, and the exit code is 0."""
    ours, theirs = os.pipe()
    process = begin(puller, theirs, theirs)
    os.close(theirs)
    os.close(ours)
    published(puller, process, library)


def test_terminal_is_gone_during_the_publication(puller: Puller, library: Path) -> None:
    """The bar and the summary are lost, and nothing else."""
    ours, theirs = pty.openpty()
    with puller.log.open("wb") as log:
        reader = subprocess.Popen(["cat"], stdin=ours, stdout=log)
    process = begin(puller, theirs, theirs)
    os.close(theirs)
    reader.kill()
    reader.wait()
    os.close(ours)
    published(puller, process, library)


@pytest.mark.parametrize(
    "streams", ["2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"]
)
def test_streams_that_take_nothing(puller: Puller, library: Path, streams: str) -> None:
    """A full disk, or streams that are closed from the start, lose the log and not the pull."""
    words = ["sh", "-c", f'exec "$@" {streams}', "sh", *puller.command()]
    done = subprocess.run(words, check=False, capture_output=True, env=puller.environment())
    assert done.returncode == 0, done.stderr
    assert rsync_differences(library, puller.target / "Library") == []


def test_closed_streams_are_no_files_of_the_volume(puller: Puller, tmp_path: Path) -> None:
    """Their descriptors are occupied: what a child process prints gets into no file."""
    script = tmp_path / "descriptors.py"
    script.write_text(
        "import os, sys\n"
        "from initpuller.__main__ import main\n"
        "from initpuller.pull import recipe\n"
        "real = recipe.open_layout\n"
        "def found(target):\n"
        "    names = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        "    with open(sys.argv[0] + '.found', 'w') as file:\n"
        "        file.write(' '.join(names))\n"
        "    return real(target)\n"
        "recipe.open_layout = found\n"
        "main()\n"
    )
    words = [sys.executable, script, *puller.command()[1:]]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    assert subprocess.run(shell, check=False, env=puller.environment()).returncode == 0
    assert Path(f"{script}.found").read_text() == " ".join(3 * [os.devnull])


def test_agent_that_cannot_log(puller: Puller, agent: Agent, library: Path) -> None:
    """Its log's disk is full: it serves a whole move, and ends as it should."""
    agent.stop()
    agent.before = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    agent.start()
    done = puller.pull()
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []
    assert agent.stop() == 0


def test_summary_that_cannot_be_written(puller: Puller, library: Path) -> None:
    """A terminal that fails only now costs the summary, also in what the interpreter flushes."""
    script = (
        "import sys\n"
        "sys.stdout = open('/dev/full', 'w')\n"
        "sys.stdout.isatty = lambda: True\n"
        "from initpuller.__main__ import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", script, *puller.command()[1:]]
    done = subprocess.run(words, check=False, capture_output=True, env=puller.environment())
    assert done.returncode == 0, done.stderr
    assert rsync_differences(library, puller.target / "Library") == []
