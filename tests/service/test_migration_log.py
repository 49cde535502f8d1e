"""The migration log has every step, survives crashes without a torn line, and holds no secret."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.programs import program
from rig.volume import pull

from agent.host.migration_log import LINES, TEXT, MigrationLog

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

_LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \S.*")


@pytest.fixture
def library(made: Path) -> Path:
    """Return a small Plex library."""
    return made


def story(agent: Agent) -> list[str]:
    """Return the lines of the text without their times."""
    lines = (agent.state / TEXT).read_text().splitlines()
    assert all(_LINE.fullmatch(line) for line in lines), lines
    return [line.partition("] ")[2] for line in lines]


def test_log_tells_the_story(agent: Agent, target: Path) -> None:
    """The log has puller, version, databases, passes and publication, in both files."""
    assert pull(target, agent, "--until", "ready").code == 0
    assert pull(target, agent).code == 0
    told = story(agent)
    wanted = [
        r"Puller 127.0.0.1: Pull until ready started on .+",
        r"Detected Plex version: 1.40.1.8227-c0dd5a73e",
        r"Library database: sound, .+",
        r"Blobs database: sound, .+",
        r"Puller 127.0.0.1: Live pass: .+ in .+",
        r"Puller 127.0.0.1: Pull until done started on .+",
        r"Puller 127.0.0.1: Cold pass, verified: .+ in .+",
        r"Puller 127.0.0.1: Published .+/Library, snapshot [0-9a-f]{64}",
    ]
    places = [next(n for n, line in enumerate(told) if re.fullmatch(each, line)) for each in wanted]
    assert places == sorted(places), told
    lines = [json.loads(line) for line in (agent.state / LINES).read_text().splitlines()]
    assert [line["about"] for line in lines] == told
    assert {"pull", "version", "database", "pass", "unchanged", "done"} == {
        line["event"] for line in lines
    }


def test_failure_is_told(agent: Agent, target: Path) -> None:
    """A failure is logged with its reason."""
    assert pull(target, agent, "--plex-version", "1.2.3.4-a").code == 12
    assert re.search(r"Pull failed: .*1\.2\.3\.4 is older", story(agent)[-1])


def test_log_is_read_over_http_and_by_the_command(agent: Agent, target: Path) -> None:
    """HTTP and command return the same bytes, as text and as JSON lines."""
    assert pull(target, agent).code == 0
    text, lines = (agent.state / TEXT).read_bytes(), (agent.state / LINES).read_bytes()
    assert agent.get("/v1/log") == text
    with closing(agent.connect()) as http:
        wanted = {"Authorization": f"Bearer {agent.token}", "Accept": "application/jsonl"}
        http.request("GET", "/v1/log", headers=wanted)
        assert http.getresponse().read() == lines
    assert program("plexodus-agent", "log", "--state", agent.state).stdout.encode() == text
    as_json = program("plexodus-agent", "log", "--state", agent.state, "--json").stdout
    assert as_json.encode() == lines


def test_log_is_followed(agent: Agent, target: Path) -> None:
    """New lines appear as they are written."""
    command = [sys.executable, "-m", "agent", "log", "--state", str(agent.state), "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert pull(target, agent).code == 0
            assert process.stdout is not None
            while "Published" not in (line := process.stdout.readline()):
                assert line
        finally:
            process.send_signal(signal.SIGKILL)


def test_torn_line_is_cut_off(tmp_path: Path) -> None:
    """The rest of a line after a crash is removed before the next one is written."""
    log = MigrationLog(str(tmp_path))
    log.write("pull", "first")
    for name in (TEXT, LINES):
        with (tmp_path / name).open("ab") as file:
            file.write(b"[2026-02-02 10:00:05] torn" + b"x" * 200_000)
    log.write("pull", "second")
    text = (tmp_path / TEXT).read_text().splitlines()
    assert [line.partition("] ")[2] for line in text] == ["first", "second"]
    lines = (tmp_path / LINES).read_text().splitlines()
    assert [json.loads(line)["about"] for line in lines] == ["first", "second"]


def test_log_that_is_only_a_torn_line(tmp_path: Path) -> None:
    """A log that is one torn line becomes empty."""
    (tmp_path / TEXT).write_bytes(b"torn")
    MigrationLog(str(tmp_path)).write("pull", "first")
    assert (tmp_path / TEXT).read_text().endswith("] first\n")
    assert "torn" not in (tmp_path / TEXT).read_text()


def test_lines_of_several_threads(tmp_path: Path) -> None:
    """No line of several threads is lost or mixed with another."""
    log = MigrationLog(str(tmp_path))
    threads = [threading.Thread(target=_write_some, args=(log, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / LINES).read_text().splitlines()
    assert {json.loads(line)["about"] for line in lines} == {
        f"{n}-{m}" for n in range(8) for m in range(20)
    }


def test_lines_of_two_processes(tmp_path: Path) -> None:
    """Two processes never cut off each other's unfinished lines."""
    script = (
        "import sys; from agent.host.migration_log import MigrationLog;"
        "log = MigrationLog(sys.argv[1]);"
        "[log.write('x', sys.argv[2] * 20_000) for _ in range(60)]"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path, letter], stderr=subprocess.DEVNULL
        )
        for letter in "ab"
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    for name in (TEXT, LINES):
        lines = (tmp_path / name).read_text().splitlines()
        assert len(lines) == 120
        assert all(line.count("a" * 20_000) + line.count("b" * 20_000) == 1 for line in lines)


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """After a kill both files have whole lines, except a last one that is cut off next."""
    code = (
        "import sys; from agent.host.migration_log import MigrationLog\n"
        "log = MigrationLog(sys.argv[1])\n"
        "for number in range(10**6): log.write('pull', f'line {number} ' + 'x' * 300)\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 20
            size = _size(tmp_path / TEXT)
            while _size(tmp_path / TEXT) < size + 5000 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
    MigrationLog(str(tmp_path)).write("pull", "after")
    for line in (tmp_path / LINES).read_text().splitlines():
        assert json.loads(line)["event"] == "pull"
    assert all(_LINE.fullmatch(line) for line in (tmp_path / TEXT).read_text().splitlines())


def _write_some(log: MigrationLog, number: int) -> None:
    for line in range(20):
        log.write("pull", f"{number}-{line}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_nothing_secret_and_no_control_character(agent: Agent, target: Path) -> None:
    """A puller's text is masked and escaped."""
    told = f"{agent.pairing}\n[2026-01-01 00:00:00] forged \x1b[2J"
    body = json.dumps({"event": "pull", "about": told}).encode()
    assert agent.ask("POST", "/v1/log", body) == b""
    text = (agent.state / TEXT).read_text()
    assert agent.token not in text
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_disk_that_is_full_holds_up_nothing(tmp_path: Path, target: Path, agent: Agent) -> None:
    """A full disk does not stop a pull."""
    (agent.state / TEXT).mkdir()
    assert pull(target, agent).code == 0


def test_log_is_not_for_everybody(agent: Agent, target: Path) -> None:
    """Only the agent's user and group may read the files."""
    assert pull(target, agent).code == 0
    assert (agent.state / TEXT).stat().st_mode & 0o007 == 0
    assert os.path.exists(agent.state / LINES)
