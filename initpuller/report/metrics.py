"""The metrics of a pull or a watch, in Prometheus's text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

if TYPE_CHECKING:
    from initpuller.report.progress import Standing

_GAUGES = {
    "bytes": "Bytes of the archive that are on the volume.",
    "total_bytes": "Bytes of the archive.",
    "entries": "Entries that are on the volume.",
    "total_entries": "Entries of the snapshot.",
    "bytes_per_second": "Of this run, from its first frame to its last.",
}


def metrics(phase: str, pull: Standing | None = None) -> bytes:
    """Return the phase as a label, and the figures of a pull."""
    registry = CollectorRegistry()
    gauge = Gauge(
        "plexodus_puller_phase", "1 for the phase it is in.", ["phase"], registry=registry
    )
    gauge.labels(phase).set(1)
    for name, about in _GAUGES.items() if pull is not None else ():
        gauge = Gauge(f"plexodus_puller_{name}", about, registry=registry)
        gauge.set(getattr(pull, name))
    return generate_latest(registry)
