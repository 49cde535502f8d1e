"""The output of a pull for people and scripts: status, verify, logs and the progress bar."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.programs import Agent, Puller, running
from rig.volume import cut_at, grow_tiny, pull, run_puller

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "initpuller.volume.staging.staging.Staging.commit"
PUBLISH = "initpuller.volume.publish.publish.publish"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent with a tiny library for all tests."""
    place = tmp_path_factory.mktemp("commands")
    agent = Agent(place / "state", grow_tiny(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


def _status(target: Path) -> dict[str, object]:
    """Return the output of ``status``; text and JSON agree, and nothing changes."""
    before = sorted(target.rglob("*"))
    text, found = (run_puller("status", "--target", target, *o) for o in ((), ("--json",)))
    standing: dict[str, object] = json.loads(found.out)
    assert (text.code, found.code) == (ExitCode.OK, ExitCode.OK)
    assert f"{standing['phase']}, {standing['percent']} %" in text.out
    assert sorted(target.rglob("*")) == before
    return standing


def test_status_in_each_phase(target: Path, agent: Agent) -> None:
    """``status`` reports nothing, transferring, publishing and done, and 100 % only when done."""
    assert _status(target)["phase"] == "nothing"
    with cut_at(COMMIT, 3):
        pull(target, agent)
    found = _status(target)
    assert (found["phase"], found["frames"], found["frames_done"]) == ("transferring", 4, 2)
    assert found["percent"] == 49
    assert found["library"] == str(target / "Library")
    assert str(found["source"]).endswith(f":{agent.library}")
    with cut_at(PUBLISH):
        pull(target, agent)
    found = _status(target)
    assert (found["phase"], found["frames_done"], found["runs"]) == ("publishing", 4, 2)
    assert found["percent"] == 99
    assert pull(target, agent).code == ExitCode.OK
    found = _status(target)
    assert (found["phase"], found["percent"], found["runs"]) == ("done", 100, 2)


def test_verify_finds_what_was_changed_removed_and_replaced(target: Path, agent: Agent) -> None:
    """``verify`` exits 13 with each file, 14 without a receipt and 15 with damaged digests."""
    assert run_puller("verify", "--target", target).code == ExitCode.CONFLICT
    assert pull(target, agent).code == ExitCode.OK
    assert run_puller("verify", "--target", target).code == ExitCode.OK
    library = target / "Library" / "Plex"
    os.truncate(library / "Metadata" / "large", 17)
    (library / "thumb").unlink()
    (library / "hard").unlink()
    (library / "hard").symlink_to("Metadata/poster")

    changed = run_puller("verify", "--target", target)

    assert changed.code == ExitCode.INTEGRITY
    assert "Library/Plex/Metadata/large: its content" in changed.reason()
    assert "Library/Plex/thumb: No such file" in changed.reason()
    assert "poster" not in changed.reason()
    with (target / ".plexodus" / "SHA256SUMS").open("ab") as file:
        file.write(b"\n")
    assert run_puller("verify", "--target", target).code == ExitCode.STORAGE


def test_logs_are_json_when_nobody_watches(agent: Agent, target: Path) -> None:
    """Without a terminal, stderr has one JSON object a line, and stdout is empty."""
    done = pull(target, agent)

    assert done.code == ExitCode.OK
    assert done.out == ""
    assert len(done.log) == len(done.text.splitlines())
    assert all({"event", "level", "timestamp"} <= line.keys() for line in done.log)
    progress = [line for line in done.log if line["event"] == "progress"]
    phases = ["scanning", "transferring", "verifying", "publishing", "done"]
    assert [line["phase"] for line in progress] == phases
    assert [line["percent"] for line in progress].count(100) == 1
    assert (progress[-1]["percent"], progress[-1]["entries"]) == (100, 10)
    names = [line["event"] for line in done.log]
    assert names.index("published") < len(names) - 1 == names.index("progress", -1)


def test_people_on_a_terminal_see_a_bar_that_ends_at_100(agent: Agent, target: Path) -> None:
    """A terminal shows no JSON, and the bar shows 100 % once, at its end."""
    puller = Puller(target, target.parent / "log", agent.pairing)
    ours, theirs = pty.openpty()
    environment = puller.environment() | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        puller.command(), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        shown += part
    os.close(ours)

    assert process.wait(timeout=30) == ExitCode.OK, shown
    text = _plain(shown.decode())
    assert '{"' not in text
    assert "published" in text
    frames = re.findall(r"^.*?(\w+) +[━╸╺ ]+ +(\d+)%", text, re.MULTILINE)
    assert frames[-1] == ("done", "100")
    assert all(percent != "100" for phase, percent in frames if phase != "done")
    assert rsync_differences(agent.library, target / "Library") == []


def _plain(text: str) -> str:
    """Return the output without colors and cursor movements, one state of the bar a line."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
