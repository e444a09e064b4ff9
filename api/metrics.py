"""What the facade counts, in a registry of its own so that two apps in one process (tests) never mix.

Neighbours: api.middleware counts requests, api.services count what they did, api.routers.operations renders it.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

UNROUTED = "(none)"
"""The route label of a path nobody declared: labels must not grow with what strangers type."""


class ApiMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time until a response began.",
            ("method", "route"),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.streams = Gauge("event_streams_open", "Watchers of deployments connected now.", registry=self.registry)
        self.plugins_registered = Counter("plugins_registered_total", "Plugins registered.", registry=self.registry)
        self.versions_uploaded = Counter(
            "plugin_versions_uploaded_total", "Versions stored, by outcome.", ("outcome",), registry=self.registry
        )
        self.deployments_started = Counter(
            "deployments_started_total", "Deployments started.", ("environment", "strategy"), registry=self.registry
        )
        self.commands = Counter(
            "deployment_commands_total", "Commands sent to deployments.", ("command", "outcome"), registry=self.registry
        )

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
