"""The sidecar waits while Plex starts, checks it exactly, and stays small while idle."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rig.plex.server import FakePlex, plex_of
from rig.ports import reserve_port
from rig.programs import Agent, clean_environment, read_log
from rig.volume import pull
from rig.waiting import wait_until

from initpuller.watch import slow_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "FAKE-not-a-token-000"  # noqa: S105 - of the generator of libraries
_SECONDS = 60.0


@pytest.fixture
def agent(made: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start the agent that serves the library."""
    agent = new_agent(made)
    agent.pair()
    agent.start()
    return agent


@pytest.fixture
def volume(moved: Path, target: Path) -> Path:
    """Return a volume that it was pulled onto."""
    return shutil.copytree(moved, target, symlinks=True, dirs_exist_ok=True)


@pytest.fixture
def plex(volume: Path) -> Iterator[FakePlex]:
    """Start the Plex that runs on it."""
    receipt = json.loads((volume / ".plexodus" / "receipt.json").read_text())
    with plex_of(receipt, token=TOKEN) as plex:
        yield plex


class Sidecar:
    """``plexodus-puller watch`` as a process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def ask(self, route: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{route}") as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def until(self, *phases: str) -> dict[str, Any]:
        """Return the content of ``/progress`` once it is in one of these phases."""
        found: dict[str, Any] = {}
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                found = self.ask("/progress")[1]
            except urllib.error.URLError:
                found = {}
            if found.get("phase") in phases:
                return found
            time.sleep(0.05)
        raise TimeoutError(f"{found}\n{self.log.read_text()}")

    def resident(self) -> int:
        """Return the resident memory in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def watching(
    volume: Path,
    plex: FakePlex,
    *options: str,
    pairing: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[Sidecar]:
    """Start a sidecar beside ``plex``."""
    port, log = reserve_port(), volume.parent / "watch.log"
    variables = clean_environment() | (environment or {})
    variables |= {"PLEXODUS_PAIRING": pairing} if pairing else {}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                Path(sys.executable).parent / "plexodus-puller", "watch", "--target", volume,
                "--plex-url", plex.url, "--listen", f"127.0.0.1:{port}", "--interval", "0.1",
                *options,
            ],
            stderr=file,
            env=variables,
        )  # fmt: skip
    try:
        yield Sidecar(process, port, log)
    finally:
        process.kill()
        process.wait()


def told(agent: Agent) -> list[dict[str, Any]]:
    """Return the lines of sidecars in the migration log."""
    told = [line for line in read_log(agent.log) if line.get("event") == "migration"]
    return [line for line in told if line["what"] in {"migrated", "attention"}]


def test_plex_starts_and_all_is_there(volume: Path, plex: FakePlex, agent: Agent) -> None:
    """The sidecar reports ``migrated``, stays small, and ends on SIGTERM."""
    with watching(volume, plex, pairing=agent.pairing) as sidecar:
        found = sidecar.until("migrated", "attention")
        assert found["phase"] == "migrated", found
        assert {each["outcome"] for each in found["checks"]} == {"pass"}
        assert sidecar.ask("/healthz")[0] == sidecar.ask("/readyz")[0] == 200
        assert sidecar.ask("/other")[0] == 404
        deadline = time.monotonic() + _SECONDS
        while not told(agent) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [line["what"] for line in told(agent)] == ["migrated"]
        story = (agent.state / "migration.log").read_text()
        parts = [
            f"Plex {found['plex_version']} runs on",
            "Libraries look in: Movies: /",
            "is served",
        ]
        places = [story.index(part) for part in parts]
        assert places == sorted(places), story
        assert sidecar.resident() <= 40 * 1024**2
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(10) == 0
    assert plex.changes() == []


def test_plex_migrates_its_database_first(volume: Path, plex: FakePlex) -> None:
    """During a migration it is not ready, and it continues with Plex."""
    plex.is_migrating = True
    with watching(volume, plex) as sidecar:
        found = sidecar.until("waiting")
        deadline = time.monotonic() + _SECONDS
        while "database migrations" not in found.get("about", "") and time.monotonic() < deadline:
            found = sidecar.ask("/progress")[1]
        assert "running database migrations" in found["about"]
        assert sidecar.ask("/readyz")[0] == 503
        assert sidecar.ask("/healthz")[0] == 200
        plex.is_migrating = False
        sidecar.until("migrated")
    said = [line["heard"] for line in read_log(sidecar.log) if line["event"].endswith("not up yet")]
    assert len(said) == len(set(said)), "the same is not said again at each question"


def test_plex_does_not_end_its_migration(
    volume: Path, plex: FakePlex, agent: Agent, tmp_path: Path
) -> None:
    """After a while the sidecar says what it saw and what to do, and goes on watching."""
    (tmp_path / "sitecustomize.py").write_text(
        "from initpuller.watch import slow_start\n"
        "slow_start.BASE_SECONDS, slow_start.BYTES_PER_SECOND = 0.5, 1e12\n"
    )
    log = next((volume / "Library").rglob("Plex Media Server.log"))
    with log.open("a") as file:
        file.write("Nov 29, 2026 10:00:00.000 [1] ERROR - Database corruption: malformed JSON\n")
    plex.is_migrating = True
    patch = {"PYTHONPATH": str(tmp_path)}
    with watching(volume, plex, pairing=agent.pairing, environment=patch) as sidecar:
        about = sidecar.until("attention")["about"]
        for part in ("running database migrations", "malformed JSON", "undo", "--rehearse"):
            assert part in about
        assert sidecar.ask("/readyz")[0] == 503
        wait_until(lambda: told(agent), _SECONDS)
        plex.is_migrating = False
        sidecar.until("migrated")
        wait_until(lambda: len(told(agent)) > 1, _SECONDS)
    assert [line["what"] for line in told(agent)] == ["attention", "migrated"]


@pytest.mark.parametrize("size", [0, 5_000_000_000])
def test_patience_grows_with_the_database(tmp_path: Path, size: int) -> None:
    """A large database gets more time than a small one; without one, there is a time, too."""
    before = slow_start.patience(str(tmp_path))
    database = tmp_path / "Plug-in Support" / "Databases" / "com.plexapp.plugins.library.db"
    database.parent.mkdir(parents=True)
    with database.open("wb") as file:
        file.truncate(size)
    assert slow_start.patience(str(tmp_path)) == before + size / 1e6
    assert slow_start.last_error(str(tmp_path)) == ""


def test_plex_goes_away_while_it_is_checked(volume: Path, plex: FakePlex) -> None:
    """A server that restarts during the check is waited for again."""
    plex.fails["GET /"] = 503
    with watching(volume, plex) as sidecar:
        sidecar.until("attention", "waiting", "checking")
        plex.fails.clear()
        found = sidecar.until("migrated", "attention")
    assert found["phase"] in {"migrated", "attention"}


def test_another_server_on_the_volume(volume: Path, plex: FakePlex, agent: Agent) -> None:
    """Another server is reported with both identities, also to the agent."""
    plex.machine_identifier = "another"
    with watching(volume, plex, pairing=agent.pairing) as sidecar:
        found = sidecar.until("migrated", "attention")
        assert found["phase"] == "attention"
        assert "fa4e" * 10 in found["about"]
        deadline = time.monotonic() + _SECONDS
        while not told(agent) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [line["what"] for line in told(agent)] == ["attention"]


def test_second_start_of_the_pod(volume: Path, plex: FakePlex, agent: Agent) -> None:
    """At a second start, neither Plex nor the agent is queried."""
    with watching(volume, plex) as sidecar:
        first = sidecar.until("migrated")
    plex.requests.clear()
    with watching(volume, plex, pairing=agent.pairing) as sidecar:
        assert sidecar.until("migrated")["since"] == first["since"]
    assert plex.requests == []
    assert told(agent) == []


def test_second_move_onto_a_volume(volume: Path, plex: FakePlex, agent: Agent) -> None:
    """After another move, Plex is checked again, and a note of the first move changes nothing."""
    with watching(volume, plex) as sidecar:
        sidecar.until("migrated")
    (volume / ".plexodus" / "trash-was-on").touch()
    (volume / ".plexodus" / "receipt.json").unlink()
    shutil.rmtree(volume / "Library")
    done = pull(volume, agent)
    assert done.code == 0, done.text
    plex.requests.clear()
    plex.empties_trash = False

    with watching(volume, plex, "--apply-paths", "--map=/srv/media=/srv/media") as sidecar:
        assert sidecar.until("migrated", "attention")["phase"] in {"migrated", "attention"}

    assert plex.requests
    assert not plex.empties_trash


def test_nothing_was_moved_here(target: Path) -> None:
    """On a volume with a foreign library it idles."""
    with FakePlex("x") as plex, watching(target, plex) as sidecar:
        assert "nothing to compare" in sidecar.until("idle")["about"]
        assert sidecar.ask("/readyz")[0] == 200
        assert plex.requests == []
    assert not list(target.iterdir())


def test_unreachable_agent_does_not_hold_up_the_sidecar(
    volume: Path, plex: FakePlex, agent: Agent
) -> None:
    """Without the agent, the move still counts as migrated, and the failed event is logged."""
    agent.kill()
    with watching(volume, plex, pairing=agent.pairing) as sidecar:
        sidecar.until("migrated")
        # The end of the sidecar may kill the thread that sends events before it says that it gave
        # up, but its first attempt is waited for.
        wait_until(lambda: any("event" in line.get("what", "") for line in read_log(sidecar.log)))
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(60) == 0


def test_libraries_move_once_plex_runs(volume: Path, plex: FakePlex, tmp_path: Path) -> None:
    """With ``--apply-paths`` sections move, and trash is emptied again at the end."""
    for section in json.loads(_paths(volume)):
        for path in section["missing"]:
            made = tmp_path / "media" / path.removeprefix("/srv/media/")
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
    media, plex.looks = tmp_path / "media", 0
    with watching(volume, plex, "--apply-paths", f"--map=/srv/media={media}") as sidecar:
        found = sidecar.until("migrated", "attention")
    assert found["phase"] == "migrated", found
    assert all(each.folders == [str(media / each.name)] for each in plex.sections)
    assert plex.empties_trash


def test_media_is_not_mounted(volume: Path, plex: FakePlex) -> None:
    """If media is not mounted, it reports that and changes no section."""
    with watching(volume, plex, "--apply-paths", "--map=/srv/media=/nowhere") as sidecar:
        found = sidecar.until("migrated", "attention")
    assert found["phase"] == "attention"
    assert "media files are missing" in found["about"]
    assert plex.changes() == []


def _paths(volume: Path) -> bytes:
    """Return the sections as JSON."""
    done = subprocess.run(
        [Path(sys.executable).parent / "plexodus-puller", "paths", "--target", volume, "--json"],
        check=False,
        capture_output=True,
        env=clean_environment(),
    )
    return done.stdout
