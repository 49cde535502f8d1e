"""The link between source and target: only loopback, or a LAN of a given speed.

The LAN is two network namespaces joined by a veth pair, each side shaped by ``tc`` (tbf). It needs
root.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
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
        yield Link(_SOURCE, ["ip", "netns", "exec", vm], ["ip", "netns", "exec", pod])
    finally:
        for side in (vm, pod):
            subprocess.run(["ip", "netns", "del", side], check=False, capture_output=True)


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
