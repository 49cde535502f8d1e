"""Third-party tools against the agent: slowhttptest, sslscan and promtool."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from rig.hostile.attack import ATTACKS, attacked, sent_away
from rig.oracle import rsync_differences
from rig.programs import Puller
from rig.virtual_machine import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a library of 480 MB that takes seconds to move."""
    library = tmp_path_factory.mktemp("vm") / "Library"
    library.mkdir()
    with open("/dev/urandom", "rb") as random:
        for number in range(60):
            (library / f"{number}").write_bytes(random.read(8_000_000))
    return library


@pytest.mark.parametrize("attack", ATTACKS)
def test_pull_succeeds_under_an_attack(
    attack: str, large: Path, tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """A pull succeeds during an attack, even from the puller's own address."""
    agent = new_agent(large)
    agent.pair()
    agent.start()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", agent.pairing)
    puller.target.mkdir()
    with attacked(agent, ATTACKS[attack]):
        finished = puller.pull()
    assert finished.code == 0, finished.text
    assert rsync_differences(large, puller.target / "Library") == []
    assert sent_away(agent) > 100, "there was no attack"


def test_sslscan_finds_no_weak_protocol(agent: Agent) -> None:
    """Only current protocols, ciphers and key exchanges are offered."""
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


def test_metrics_pass_promtool(agent: Agent, puller: Puller) -> None:
    """The metrics pass promtool after a pull and a wrong token."""
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
