"""The agent as a service notifies systemd, reacts to signals, and ends in time."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.ports import reserve_port
from rig.programs import program, read_log
from rig.waiting import wait_until

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller


class Systemd:
    """The end of ``NOTIFY_SOCKET`` that systemd holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(path))
        self._end.settimeout(10)
        self.told: list[str] = []

    def wait(self, what: str) -> str:
        """Return the next line that begins with ``what``."""
        while True:
            for line in self._end.recv(4096).decode().splitlines():
                self.told.append(line)
                if line.startswith(what):
                    return line

    def close(self) -> None:
        """Close the socket."""
        self._end.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Listen as systemd does."""
    with closing(Systemd(tmp_path / "notify")) as end:
        yield end


def test_systemd_is_told(agent: Agent, systemd: Systemd, puller: Puller) -> None:
    """The agent sends READY once the port is open, then keepalives, status and the end."""
    agent.kill()
    agent.start(environment={"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "1500000"})
    systemd.wait("READY=1")
    with socket.create_connection(("127.0.0.1", agent.port), 1):
        pass
    assert systemd.wait("STATUS=") == "STATUS=Serving; waiting for a puller"
    systemd.wait("WATCHDOG=1")
    assert puller.pull().code == 0
    assert "12 of 12 frames" in systemd.wait("STATUS=Serving; 12")
    systemd.wait("WATCHDOG=1")
    assert agent.stop() == 0
    systemd.wait("STOPPING=1")


def test_nothing_is_told_before_the_port_is_open(agent: Agent, systemd: Systemd) -> None:
    """A second agent on the same port never reports READY."""
    done = program(
        "plexodus-agent", "serve", "--state", agent.state, "--library", agent.library, "--listen",
        f"127.0.0.1:{agent.port}", check=False, environment={"NOTIFY_SOCKET": str(systemd.path)},
    )  # fmt: skip
    assert done.returncode == ExitCode.PREFLIGHT
    assert "cannot listen" in done.stderr
    systemd._end.settimeout(0.1)
    with pytest.raises(TimeoutError):
        systemd.wait("READY=1")


def test_settings_are_read_again(
    tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent], systemd: Systemd
) -> None:
    """A new rate applies at once; an invalid setting is reported, and the old one stays."""
    path = tmp_path / "agent.toml"
    path.write_text('rate = "1GB/s"\n')
    agent = new_agent(library)
    agent.pair()
    agent.start("--config", path, environment={"NOTIFY_SOCKET": str(systemd.path)})
    systemd.wait("READY=1")
    frame = f"/v1/snapshots/{agent.scan().id}/frames/2.tar"

    path.write_text('rate = "2MB/s"\nunit = "another.service"\n')
    os.kill(agent.pid, signal.SIGHUP)
    systemd.wait("RELOADING=1")
    systemd.wait("READY=1")
    assert read_log(agent.log)[-1]["need_restart"] == ["unit"]
    started = time.monotonic()
    size = len(agent.get(frame))
    assert time.monotonic() - started > 0.8 * size / 2e6

    path.write_text('rate = "as you like"\n')
    os.kill(agent.pid, signal.SIGHUP)
    systemd.wait("READY=1")
    refused = read_log(agent.log)[-1]
    assert refused["event"] == "settings not applied"
    assert "as you like" in refused["reason"]
    started = time.monotonic()
    assert len(agent.get(frame)) == size
    assert time.monotonic() - started > 0.8 * size / 2e6


def test_frame_in_hand_is_finished(library: Path, new_agent: Callable[[Path], Agent]) -> None:
    """After SIGTERM the current frame arrives whole, and the agent ends within ten seconds."""
    agent = new_agent(library)
    agent.pair()
    agent.start("--rate", "2MB/s")
    snapshot = agent.scan()
    with closing(agent.connect()) as http:
        headers = {"Authorization": f"Bearer {agent.token}"}
        http.request("GET", f"/v1/snapshots/{snapshot.id}/frames/2.tar", headers=headers)
        response = http.getresponse()
        first = response.read(100_000)
        started = time.monotonic()
        ended: list[int] = []
        stopping = threading.Thread(target=lambda: ended.append(agent.stop()))
        stopping.start()
        rest = response.read()
        assert len(first) + len(rest) == int(response.headers["Content-Length"])
        stopping.join()
    assert ended == [0]
    assert time.monotonic() - started < 10


def test_archive_is_left_at_a_frames_end(
    library: Path, new_agent: Callable[[Path], Agent], tmp_path: Path
) -> None:
    """A long download is cut off at SIGTERM, and resumes with the next agent."""
    agent = new_agent(library)
    agent.pair()
    agent.start("--rate", "4MB/s")
    whole = tmp_path / "whole.tar"
    url = f"{agent.url}/v1/snapshots/{agent.scan().id}/archive.tar"
    command: list[str | Path] = [
        "curl",
        "-sSk",
        "-u",
        f"x:{agent.token}",
        "-C",
        "-",
        "-o",
        whole,
        url,
    ]
    download = subprocess.Popen(command, stderr=subprocess.PIPE)
    wait_until(lambda: whole.exists() and whole.stat().st_size >= 1_000_000, meanwhile=download)
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 10
    download.communicate(timeout=10)
    assert download.returncode in {18, 56}
    agent.start()
    subprocess.run(command, check=True)
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "xf", whole, "-C", tmp_path / "unpacked"], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", library, tmp_path / "unpacked" / "Library"],
                   check=True)  # fmt: skip


def test_agent_ends_in_the_middle_of_a_scan(
    tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """Clients that wait for a scan get 503 with Retry-After, and the agent ends in time."""
    library = tmp_path / "Library"
    library.mkdir()
    with (library / "sparse").open("wb") as file:
        file.truncate(200 * 1024**3)  # minutes to hash
    agent = new_agent(library)
    agent.pair()
    agent.start()
    snapshot = agent.scan()
    with closing(agent.connect()) as http:
        headers = {"Authorization": f"Bearer {agent.token}"}
        http.request("GET", f"/v1/snapshots/{snapshot.id}/SHA256SUMS", headers=headers)
        time.sleep(1)
        started = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - started < 10
        response = http.getresponse()
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Connection"] == "close"
        assert json.loads(response.read())["title"] == "the agent is stopping"


def test_new_token_needs_no_restart(agent: Agent) -> None:
    """A new token works at once, and the old one fails at once."""
    agent.get("/openapi.json")
    old = agent.token
    agent.pair()
    agent.get("/openapi.json")
    with closing(agent.connect()) as http:
        http.request("GET", "/openapi.json", headers={"Authorization": f"Bearer {old}"})
        assert http.getresponse().status == 401


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_full_state_disk(tmp_path: Path, library: Path) -> None:
    """A full state disk is reported at the start with its documented exit code."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", state], check=True)
    try:
        options: list[str | Path] = [
            "--state",
            state,
            "--listen",
            f"127.0.0.1:{reserve_port()}",
            "--library",
            library,
        ]
        program("plexodus-agent", "pair", "--state", state, "--address", "vm:1")
        with (state / "fills").open("wb", buffering=0) as file, pytest.raises(OSError, match="28"):
            shutil.copyfileobj(io.BytesIO(bytes(100_000)), file, 4096)
        served = program("plexodus-agent", "serve", *options, check=False)
        assert served.returncode == 15
        assert "no space left" in served.stderr
        paired = program(
            "plexodus-agent", "pair", "--state", state, "--address", "vm:1", check=False
        )
        assert paired.returncode == 15
    finally:
        subprocess.run(["umount", state], check=True)


def test_metrics_tell_what_happened(agent: Agent, puller: Puller) -> None:
    """Metrics count bytes, frames, phases and requests, and need the token."""
    assert puller.pull().code == 0
    size = sum(len(agent.get(f"/v1/snapshots/{agent.scan().id}/archive.tar")) for _ in range(2))
    text = agent.get("/metrics").decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["plexodus_agent_frames_total"]) == 12
    assert float(values["plexodus_agent_sent_bytes_total"]) > size
    assert float(values["plexodus_agent_archive_frames_total"]) >= 12
    assert float(values["plexodus_agent_archive_cache_hits_total"]) > 0
    for phase, times in (("scanning", 3), ("hashing", 1), ("checking", 2)):
        assert float(values[f'plexodus_agent_phase_seconds_count{{phase="{phase}"}}']) == times
    frames = [name for name in values if "_count" in name and "frames/{number}" in name]
    assert [values[name] for name in frames] == ["12.0"]
    assert agent.token not in text
    with closing(agent.connect()) as http:
        http.request("GET", "/metrics")
        assert http.getresponse().status == 401


def test_health_is_cheap_for_strangers(agent: Agent) -> None:
    """A thousand health requests on one connection log no failure."""
    with closing(agent.connect()) as http:
        for _ in range(1000):
            http.request("GET", "/readyz")
            response = http.getresponse()
            assert response.status == 200
            response.read()


def test_pull_goes_on_after_a_restart_of_the_service(
    agent: Agent, puller: Puller, library: Path, target: Path
) -> None:
    """A pull survives a restart of the agent."""
    process = puller.begin("--jobs", "1")
    wait_until(lambda: len(agent.frames_asked()) >= 3, meanwhile=process)
    agent.stop()
    agent.start()
    assert puller.finished(process).code == 0
    assert rsync_differences(library, target / "Library") == []
