"""Other people's tools against the agent: slowhttptest, sslscan, promtool."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from rig.oracle import rsync_differences
from rig.programs import Puller
from rig.vm import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent

pytestmark = pytest.mark.vm

ATTACKS = {
    "heads that never end": ["-H", "-i", "3", "-u", "{url}/v1/snapshots"],
    "bodies that never end": ["-B", "-i", "3", "-t", "POST", "-u", "{url}/v1/snapshots"],
    "answers never read": ["-X", "-w", "1", "-y", "2", "-n", "5", "-z", "1", "-u", "{url}/readyz"],
}
CONNECTIONS, A_SECOND, SECONDS = 1000, 200, 60


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of 480 MB that takes seconds to move."""
    library = tmp_path_factory.mktemp("vm") / "Library"
    library.mkdir()
    with open("/dev/urandom", "rb") as random:
        for number in range(60):
            (library / f"{number}").write_bytes(random.read(8_000_000))
    return library


@contextmanager
def attacked(agent: Agent, options: list[str]) -> Iterator[None]:
    """While this goes on, slowhttptest has a thousand connections, or tries to."""
    filled = [option.format(url=agent.url) for option in options]
    attacker = subprocess.Popen(
        ["slowhttptest", "-c", str(CONNECTIONS), "-r", str(A_SECOND), "-l", str(SECONDS), *filled],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(CONNECTIONS / A_SECOND / 2)
        assert attacker.poll() is None
        yield
        assert attacker.poll() is None, "the attack ended before the pull: it proves nothing"
    finally:
        attacker.kill()
        attacker.wait()


@pytest.mark.parametrize("attack", ATTACKS)
def test_pull_under_attack(
    attack: str, large: Path, tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """From the puller's own address, which is the worst one: it keeps half its speed."""
    agent = new_agent(large)
    agent.pair()
    agent.start()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(4):
        is_attacked = number % 2 == 1
        target = tmp_path / "config"
        target.mkdir()
        puller = Puller(target, tmp_path / "puller.log", agent.pairing)
        if is_attacked:
            with attacked(agent, ATTACKS[attack]):
                seconds[True].append(timed_pull(puller))
        else:
            seconds[False].append(timed_pull(puller))
        assert rsync_differences(large, target / "Library") == []
        shutil.rmtree(target)
    ratio = min(seconds[False]) / min(seconds[True])
    print(f"{attack}: {ratio:.2f} of the speed without")  # noqa: T201 - a figure people ask for
    assert ratio >= 0.5, seconds
    refused = [
        float(line.rpartition(" ")[2])
        for line in agent.get("/metrics").decode().splitlines()
        if line.startswith("plexodus_agent_connections_sent_away_total{")
    ]
    assert sum(refused) > 100, "there was no attack"


def timed_pull(puller: Puller) -> float:
    """Seconds that a pull takes, which must end well."""
    started = time.monotonic()
    finished = puller.pull()
    assert finished.code == 0, finished.text
    return time.monotonic() - started


def test_sslscan_finds_nothing_old(agent: Agent) -> None:
    """Protocols, ciphers, key exchanges, renegotiation, compression, Heartbleed."""
    done = subprocess.run(
        ["sslscan", "--xml=-", "--show-certificate", f"127.0.0.1:{agent.port}"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = ET.fromstring(done.stdout)
    spoken = {
        f"{each.get('type')}{each.get('version')}"
        for each in found.iter("protocol")
        if each.get("enabled") == "1"
    }
    assert spoken == {"tls1.2", "tls1.3"}
    ciphers = {str(each.get("cipher")) for each in found.iter("cipher")}
    assert ciphers
    for cipher in ciphers:
        assert cipher.startswith(("ECDHE-", "TLS_")), cipher
        assert "GCM" in cipher or "CHACHA20" in cipher, cipher
    assert {each.get("vulnerable") for each in found.iter("heartbleed")} == {"0"}
    assert {each.get("supported") for each in found.iter("compression")} <= {"0"}
    assert {each.get("supported") for each in found.iter("renegotiation")} == {"0"}


def test_promtool_has_no_complaint(agent: Agent, puller: Puller) -> None:
    """About names, types, help and format of the metrics, after a pull and a wrong token."""
    assert puller.pull().code == 0
    promtool = REPOSITORY / "build" / "tools" / "usr" / "bin" / "promtool"
    done = subprocess.run(
        [promtool, "check", "metrics"],
        check=False,
        capture_output=True,
        input=agent.get("/metrics"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr == b""
