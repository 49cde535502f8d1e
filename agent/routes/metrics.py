"""``/metrics``, for Prometheus: counters of all parts of the agent, and request times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agent.source.activity import Phase
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.typedefs import Handler, Middleware
    from prometheus_client.metrics_core import Metric

    from agent.frames.cache import FrameCache
    from agent.server.auth import WrongTokens
    from agent.server.connections import Connections
    from agent.server.rate_limit import Outflow
    from agent.source.activity import Activity

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Seconds. A frame takes tens of milliseconds, a scan minutes, an archive half an hour."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


class Metrics(Collector):
    """The agent's metrics, read from the counting objects at each request."""

    def __init__(
        self, outflow: Outflow, frames: FrameCache, activity: Activity, wrong: WrongTokens
    ) -> None:
        self._outflow, self._frames = outflow, frames
        self._activity, self._wrong = activity, wrong
        self.connections: Connections | None = None
        """Set once the port is open."""
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "plexodus_agent_request_seconds",
            "Time from the last header byte of a request to the last byte of its response",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._running = Gauge(
            "plexodus_agent_requests_running",
            "Requests whose handler is at work, also for clients that have hung up",
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def routes(self) -> list[web.RouteDef]:
        """Return the route of this file."""
        return [web.get(protocol.METRICS, self.metrics)]

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return all metrics in Prometheus's text format."""
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def timed(self) -> Middleware:
        """Return a middleware that measures the time of requests by route, not by path."""

        @web.middleware
        async def time_request(request: web.Request, handler: Handler) -> web.StreamResponse:
            started = time.monotonic()
            with self._running.track_inprogress():
                response = await handler(request)
            resource = request.match_info.route.resource
            method = request.method if request.method in _METHODS else "other"
            route = "none" if resource is None else resource.canonical
            labels = method, route, str(response.status)
            self._requests.labels(*labels).observe(time.monotonic() - started)
            return response

        return time_request

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that other modules count."""
        for name, about, count in (
            ("sent_bytes", "Bytes of bodies, before TLS", self._outflow.sent),
            ("frames", "Frames built for pullers", self._activity.frames),
            ("archive_frames", "Frames built for archives", self._frames.made),
            (
                "archive_cache_hits",
                "Frames of archives that were still in memory",
                self._frames.hits,
            ),
            ("wrong_tokens", "Requests with a token that is not valid", self._wrong.seen),
        ):
            yield CounterMetricFamily(f"plexodus_agent_{name}", about, count)
        took = SummaryMetricFamily(
            "plexodus_agent_phase_seconds", "Completed work on the whole library", labels=["phase"]
        )
        running = GaugeMetricFamily(
            "plexodus_agent_phase_running",
            "1 while this work on the whole library is running",
            labels=["phase"],
        )
        for phase in Phase:
            ended, seconds = self._activity.ended[phase], self._activity.seconds[phase]
            took.add_metric([phase.value], ended, seconds)
            running.add_metric([phase.value], phase in self._activity.running)
        yield took
        yield running
        if self.connections is not None:
            yield from _connections(self.connections)


def _connections(connections: Connections) -> Iterator[Metric]:
    yield GaugeMetricFamily("plexodus_agent_connections", "Open connections", len(connections.open))
    gone = CounterMetricFamily(
        "plexodus_agent_connections_sent_away",
        "Connections closed by the agent: too many, idle, or without supported TLS",
        labels=["reason"],
    )
    for reason, count in connections.sent_away.items():
        gone.add_metric([reason], count)
    yield gone
