"""The campaign's faults when one of them begins before an earlier one of its kind is repaired."""

from __future__ import annotations

import random
import socket
import threading
from collections import defaultdict
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from campaign.faults.connections import FAULTS as OF_CONNECTIONS
from campaign.faults.processes import reboot
from campaign.faults.storage import FAULTS as OF_STORAGE
from campaign.network import Network
from campaign.story import Mode
from campaign.volume import Volume
from rig.hostile.fault_proxy import Cut
from rig.mounts import NEEDS_ROOT
from rig.ports import reserve_port
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from campaign.faults import Strike
    from campaign.site import Site


def strike_of(name: str) -> Strike:
    """Return what a fault does."""
    return next(each.strike for each in (*OF_CONNECTIONS, *OF_STORAGE) if each.name == name)


def chance_of(seed: int) -> random.Random:
    """Return the source of a fault's decisions."""
    return random.Random(seed)  # noqa: S311 - no secret is drawn


class Scene:
    """A site with what a fault of a connection or of the volume needs."""

    def __init__(self, network: Network | None = None, volume: Volume | None = None) -> None:
        self.network, self.volume = network, volume
        self.repairs: list[Callable[[], None]] = []
        self.delays: list[float] = []
        self.pulls = 1
        self.failures: defaultdict[int, list[str]] = defaultdict(list)

    def later(self, seconds: float, _what: str, repair: Callable[[], None]) -> None:
        """Keep the repair for the test."""
        self.delays.append(seconds)
        self.repairs.append(repair)

    def strike(self, name: str) -> Any:  # noqa: ANN401 - a truth or a function, as for a site
        """Have a fault strike, and return its evidence."""
        return strike_of(name)(cast("Site", self), chance_of(1))


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a network to a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", reserve_port())) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with Network(server.getsockname()[1], None) as network:
            yield network
            network.recover()
        server.shutdown(socket.SHUT_RDWR)


def echo(server: socket.socket) -> None:
    """Send back the first bytes of each connection until the server is shut down."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, suppress(OSError):  # a fault has ended it
            connection.sendall(connection.recv(100))


def is_answered(network: Network, seconds: float = 20.0) -> bool:
    """Return whether the server answers in that time."""
    try:
        with socket.create_connection(("127.0.0.1", network.port), seconds) as client:
            client.sendall(b"hello")
            return client.recv(100) == b"hello"
    except OSError:
        return False


def test_network_that_is_held_twice(network: Network) -> None:
    """Data flows after both repairs, and each fault counts only what waited before its own."""
    scene = Scene(network)
    first, second = scene.strike("network stalled"), scene.strike("network stalled")
    repair_first, repair_second = scene.repairs
    repair_first()
    assert not is_answered(network, 0.3)
    wait_until(second, 20)
    assert not first()
    repair_second()
    assert is_answered(network)


def test_network_that_is_gone_twice(network: Network) -> None:
    """Connections are accepted after both repairs, and the end of a stall does not repair it."""
    scene = Scene(network)
    for name in ("network stalled", "network gone", "network gone"):
        scene.strike(name)
    for repair in scene.repairs[:-1]:
        repair()
        assert not is_answered(network, 0.3)
    scene.repairs[-1]()
    assert is_answered(network)


def test_faults_that_are_planned_until_everything_is_repaired(network: Network) -> None:
    """They strike no later connection, and equal faults of another plan are no evidence."""
    scene = Scene(network)
    reset = scene.strike("connections reset")
    network.plan(Cut(0))
    network.recover()
    assert is_answered(network)
    network.plan(*(Cut(at) for at in range(1)))
    assert not is_answered(network)
    assert not reset()


def test_resets_that_equal_those_of_another_fault(network: Network) -> None:
    """Each fault counts its own, also if both have drawn the same bytes."""
    scene = Scene(network)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("campaign.faults.connections._HEAD", 1)
        patched.setattr("campaign.faults.connections._BYTES", 1)
        seed = next(each for each in range(99) if chance_of(each).randint(0, 2) == 1)
        strike, site = strike_of("connections reset"), cast("Site", scene)
        evidence = [strike(site, chance_of(seed)) for _ in range(2)]
    assert not is_answered(network)
    wait_until(lambda: network.happened, 20)
    assert [each() for each in evidence if not isinstance(each, bool)] == [True, False]


@NEEDS_ROOT
def test_volume_that_is_filled_twice(tmp_path: Path) -> None:
    """There is room after the second repair, and each fault counts the pulls before its own."""
    volume = Volume(tmp_path / "volume")
    volume.mount()
    try:
        scene = Scene(volume=volume)
        first = scene.strike("volume full")
        second = scene.strike("volume full")
        repair_first, repair_second = scene.repairs
        repair_first()
        assert (volume.place / "filler").exists()
        scene.pulls = 2
        scene.failures[2] = ["NoSpace"]
        assert not first()
        repair_second()
        assert not (volume.place / "filler").exists()
        assert second()
    finally:
        volume.unmount()


def test_boot_after_a_cut_that_draws() -> None:
    """The time of the boot depends on the seed alone, not on what the cut draws for the disk."""
    delays = [delay_of_boot(draws) for draws in (0, 7)]
    assert delays[0] == delays[1]


def delay_of_boot(draws: int) -> float:
    """Return the time until a VM boots after a cut that draws so often."""
    scene, chance = Scene(), chance_of(1)
    site = SimpleNamespace(
        vm=SimpleNamespace(is_up=True),
        story=SimpleNamespace(mode=Mode.MOVE),
        check_agent=lambda: None,
        later=scene.later,
    )

    def cut() -> None:
        """Draw what is left on the disk."""
        for _ in range(draws):
            chance.random()

    assert reboot(cast("Site", site), chance, cut)
    return scene.delays[0]
