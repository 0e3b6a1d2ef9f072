"""/metrics for Prometheus: what the server answered, and how the installation stands (read from the database when it is asked)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from danlu.services.platform import system

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from danlu.services.platform.platform import Platform

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("danlu_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry)
        self._seconds = Histogram("danlu_request_seconds", "Time to answer, until the last byte.", ["route"], buckets=BUCKETS, registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note a request; `route` is a template, so that the number of series does not grow with ids."""
        self._requests.labels(method if method in METHODS else "other", route, str(status or 499)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, platform: Platform) -> bytes:
        """Return everything in Prometheus' text format."""
        standing = CollectorRegistry()
        standing.register(_Standing(platform))
        return generate_latest(self.registry) + generate_latest(standing)


class _Standing:
    """How the installation stands at this moment."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def describe(self) -> list[Metric]:
        """Nothing: a look into the database is not needed to register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        status = system.look(self.platform)
        jobs = GaugeMetricFamily("danlu_jobs", "Jobs that are not over, by state; and all that are over.", labels=["state"])
        for state, count in status.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        workers = GaugeMetricFamily("danlu_worker_heartbeat_age_seconds", "Time since each worker said that it is there.", labels=["host"])
        for worker in status.workers:
            workers.add_metric([worker.host], time.time() - worker.heartbeat_at)
        yield workers
        yield GaugeMetricFamily("danlu_queue_age_seconds", "How long the oldest job that could start has waited.", value=status.queue_age_seconds)
        yield GaugeMetricFamily("danlu_disk_free_bytes", "Free on the disk of the home folder.", value=status.disk_free_bytes)
        yield GaugeMetricFamily("danlu_memory_available_bytes", "Memory that programs can still have.", value=status.memory_available_bytes)
        yield GaugeMetricFamily("danlu_server_rss_bytes", "Memory of the server process.", value=system.rss_bytes())
        yield GaugeMetricFamily("danlu_open_alarms", "Alarms that have not been cleared.", value=len(status.alarms))
