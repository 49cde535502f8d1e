"""All faults. Their order and number decide what a seed means."""

from __future__ import annotations

from campaign.faults import Fault, connections, people, power, processes, storage

FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *connections.FAULTS,
    *storage.FAULTS,
    *people.FAULTS,
    *power.FAULTS,
)
BY_NAME = {fault.name: fault for fault in FAULTS}
