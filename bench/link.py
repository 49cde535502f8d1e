"""The link between source and target: only loopback, or a LAN of a given speed.

The LAN is two network namespaces joined by a veth pair, each side shaped by ``tc`` (tbf). It needs
root. Each side can have a processor core of its own, as two machines have.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE, _TARGET = "10.98.76.1", "10.98.76.2"


@dataclass(frozen=True)
class Link:
    """How commands are run on either side, and how the target reaches the source."""

    source_address: str = "127.0.0.1"
    on_source: list[str] = field(default_factory=list)
    """What comes before a command that is to run on the source's side."""
    on_target: list[str] = field(default_factory=list)
    bytes_per_second: float = 0.0
    """Speed of a shaped link; 0 without one."""

    def pinned(self) -> Link:
        """Return the same link with the first core for the source and the second for the target."""
        source, target = (["taskset", "--cpu-list", core] for core in ("0", "1"))
        return replace(
            self, on_source=[*self.on_source, *source], on_target=[*self.on_target, *target]
        )

    def sent_bytes(self) -> int:
        """Return the bytes that have left the source so far; 0 without a shaped link."""
        if not self.bytes_per_second:
            return 0
        count = [*self.on_source, "cat", "/sys/class/net/eth0/statistics/tx_bytes"]
        return int(subprocess.run(count, check=True, capture_output=True).stdout)

    def wait_for(self, port: int, seconds: float) -> None:
        """Wait until something listens on the source's ``port``.

        Raises:
            TimeoutError: nothing does.
        """
        deadline = time.monotonic() + seconds
        probe = f": < /dev/tcp/{self.source_address}/{port}"
        while time.monotonic() < deadline:
            done = subprocess.run(
                [*self.on_target, "bash", "-c", probe], check=False, capture_output=True
            )
            if done.returncode == 0:
                return
            time.sleep(0.02)
        raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def shaped_link(rate: str) -> Iterator[Link]:
    """A LAN of ``rate`` (as tc spells it: ``1gbit``) in both directions, while in use."""
    vm, pod = "plexodus-bench-vm", "plexodus-bench-pod"
    shape = f"root tbf rate {rate} burst 256kb latency 20ms"
    try:
        _ip(f"netns add {vm}")
        _ip(f"netns add {pod}")
        _ip(f"link add eth0 netns {vm} type veth peer name eth0 netns {pod}")
        for side, address in ((vm, _SOURCE), (pod, _TARGET)):
            _ip(f"-n {side} addr add {address}/24 dev eth0")
            _ip(f"-n {side} link set eth0 up")
            _ip(f"-n {side} link set lo up")
            # Packets as they are on a wire: tbf drops what is larger than its burst.
            enter = ["ip", "netns", "exec", side]
            subprocess.run(
                [*enter, "tc", "qdisc", "add", "dev", "eth0", *shape.split()], check=True
            )
        in_vm, in_pod = (["ip", "netns", "exec", side] for side in (vm, pod))
        yield Link(_SOURCE, in_vm, in_pod, _bytes_per_second(rate))
    finally:
        for side in (vm, pod):
            subprocess.run(["ip", "netns", "del", side], check=False, capture_output=True)


def _bytes_per_second(rate: str) -> float:
    """Return the speed of a rate as tc(8) spells it: ``1gbit``, ``2.5gbit`` or ``100mbit``.

    Raises:
        ValueError: It is spelled in another way.
    """
    for unit, bits in (("gbit", 1e9), ("mbit", 1e6)):
        if rate.endswith(unit):
            return float(rate.removesuffix(unit)) * bits / 8
    raise ValueError(f"the rate {rate} is not a number with gbit or mbit")


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
