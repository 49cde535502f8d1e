"""The agent's own checks of databases: waited for without threads, and never taken for Plex."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import SERVER
from rig.plex.frozen_check import frozen_check
from rig.plex.reader import opened

from agent.snapshots import cold_source
from shared.errors import SourceUnreadable, StorageError, Temporary
from shared.plex.library import DATABASE_FOLDER, DATABASES
from shared.program.exit_codes import ExitCode, exit_code_for
from shared.wire import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent, Puller


@pytest.fixture
def library(plex_library: Path) -> Path:
    """A Plex library."""
    return plex_library


def test_abandoned_scans_do_not_keep_the_agent_from_a_cutover(
    agent: Agent, puller: Puller, library: Path
) -> None:
    """Clients that give up while a check is waited for leave no thread that waits."""
    database = library / SERVER / DATABASE_FOLDER / DATABASES[0]
    with ThreadPoolExecutor(2) as workers:
        with opened(database) as plex:
            checked, frozen = frozen_check(agent, workers, database, plex.pid)
        try:
            for _ in range(40):  # more than an agent has threads
                _give_up_scan(agent)
            assert workers.submit(agent.get, protocol.CUTOVER).result(20)
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert checked.result()
    log = (agent.state / "migration.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in log].count("waiting") == 1
    assert puller.pull().code == 0


def _give_up_scan(agent: Agent) -> None:
    """Ask for a cold scan, and disconnect when the scan itself is over."""
    with closing(agent.connect()) as http:
        body = json.dumps({"kind": "cold", "exclude": []}).encode()
        head = {"Authorization": f"Bearer {agent.token}", "Content-Type": "application/json"}
        http.request("POST", protocol.SNAPSHOTS, body, head)
        time.sleep(0.1)


ERRORS = {
    errno.EIO: (StorageError, ExitCode.STORAGE),
    errno.EMFILE: (Temporary, ExitCode.UNREACHABLE),
    errno.EACCES: (SourceUnreadable, ExitCode.PREFLIGHT),
}


@pytest.mark.parametrize("code", ERRORS)
def test_failed_look_at_a_database_is_no_missing_right(tmp_path: Path, code: int) -> None:
    """An I/O error is one of the disk, and an agent without free descriptors is asked again."""
    kind, exit_code = ERRORS[code]
    error = cold_source._unknown(OSError(code, os.strerror(code)), str(tmp_path / "a.db-shm"))
    assert isinstance(error, kind)
    assert exit_code_for(error) == exit_code
    assert os.strerror(code) in str(error)
    assert str(tmp_path / "a.db-shm") in str(error)
    assert "--exclude does not apply" in str(error) or "--exclude" not in str(error)


def test_agent_without_descriptors_is_asked_again(tmp_path: Path, library: Path) -> None:
    """A process that may open no more files finds out nothing, and says so as a temporary error."""
    database = library / SERVER / DATABASE_FOLDER / DATABASES[0]
    with opened(database) as plex:
        plex.kill()
        plex.wait()
    code = (
        "import resource, sys\n"
        "from agent.snapshots.cold_source import _checked_by_us\n"
        "from shared.errors import Temporary\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n    _checked_by_us(sys.argv[1:])\n"
        "except Temporary as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(database)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Too many open files" in done.stdout
