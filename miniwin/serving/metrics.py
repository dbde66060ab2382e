"""Numbers for Prometheus: what the server does, by model."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model, r = ["model"], self.registry
        self.requests = Counter("miniwin_requests", "Answers by route and status.", ["route", "status"], registry=r)
        self.read = Counter("miniwin_tokens_read", "Ids of prompts that were computed.", model, registry=r)
        self.cached = Counter("miniwin_tokens_cached", "Ids of prompts that were kept.", model, registry=r)
        self.generated = Counter("miniwin_tokens_generated", "Ids that were drawn.", model, registry=r)
        self.queue = Gauge("miniwin_queue_length", "Texts that wait to begin.", model, registry=r)
        self.running = Gauge("miniwin_running", "Texts that are read or written.", model, registry=r)
        self.kept = Gauge("miniwin_kept_bytes", "Memory of kept states.", model, registry=r)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.batch = Histogram("miniwin_batch_size", "Texts in a step.", model, buckets=sizes, registry=r)
        told = "Seconds from the request to its first token."
        self.first = Histogram("miniwin_time_to_first_token_seconds", told, model, buckets=SECONDS, registry=r)
        told = "Seconds between two tokens of a text."
        self.token = Histogram("miniwin_seconds_per_token", told, model, buckets=SECONDS, registry=r)

    def of(self, model: str) -> ModelMetrics:
        return ModelMetrics(self, model)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class ModelMetrics:
    """The numbers of one model. Looking them up by its name at every token would take longer than counting."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.read, self.cached, self.generated = (
            one.labels(model) for one in (metrics.read, metrics.cached, metrics.generated)
        )
        self.queue, self.running, self.kept = (
            one.labels(model) for one in (metrics.queue, metrics.running, metrics.kept)
        )
        self.batch, self.first, self.token = (
            one.labels(model) for one in (metrics.batch, metrics.first, metrics.token)
        )
