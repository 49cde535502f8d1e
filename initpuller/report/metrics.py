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


def phase_metrics(phase: str) -> bytes:
    """Return the phase alone, as a label."""
    return generate_latest(_with_phase(phase))


def pull_metrics(standing: Standing) -> bytes:
    """Return a pull's phase and figures."""
    registry = _with_phase(standing.phase)
    for name, about in _GAUGES.items():
        gauge = Gauge(f"plexodus_puller_{name}", about, registry=registry)
        gauge.set(getattr(standing, name))
    return generate_latest(registry)


def _with_phase(phase: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge(
        "plexodus_puller_phase", "1 for the phase it is in.", ["phase"], registry=registry
    )
    gauge.labels(phase).set(1)
    return registry
