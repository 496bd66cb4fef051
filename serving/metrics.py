"""What Prometheus reads at /metrics: requests, stages, batches, pictures, the queue, the model, the process.

Labels take few values: a path that is not served counts as ``other``, so that nobody can fill the memory with names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.admission import Admission
from serving.models import Models

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MEGAPIXELS = (0.07, 0.3, 1, 2, 4, 8, 12, 25, 50)
_BATCHES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kintsugi_requests", "Requests answered", ("path", "status"), registry=self.registry
        )  # fmt: skip
        self.seconds = Histogram(
            "kintsugi_request_seconds", "From the first byte to the last", ("path",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.stages = Histogram(
            "kintsugi_stage_seconds", "Of repairs, by stage", ("stage",), buckets=_SECONDS, registry=self.registry
        )
        self.megapixels = Histogram(
            "kintsugi_picture_megapixels", "Of pictures that were decoded", buckets=_MEGAPIXELS, registry=self.registry
        )
        self.batches = Histogram(
            "kintsugi_batch_size", "Tiles that the network was given at a time", buckets=_BATCHES,
            registry=self.registry,
        )  # fmt: skip
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def attach(self, models: Models, admission: Admission) -> None:
        """Show what serves and what waits, as it is when Prometheus asks."""
        self.registry.register(_State(models, admission))

    def answered(self, path: str, status: int, seconds: float, stages: Mapping[str, float]) -> None:
        """Count a request that was answered."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        for stage, took in stages.items():
            self.stages.labels(stage).observe(took)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    def __init__(self, models: Models, admission: Admission) -> None:
        self._models, self._admission = models, admission

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("kintsugi_queue_depth", "Requests that wait for a slot", self._admission.waiting)
        yield GaugeMetricFamily("kintsugi_running", "Repairs that run", self._admission.running)
        yield CounterMetricFamily("kintsugi_model_switches", "Models that replaced another", self._models.switched)
        yield CounterMetricFamily("kintsugi_model_refused", "Models that were not taken", self._models.refused)
        info = GaugeMetricFamily(
            "kintsugi_model_info", "What is served", labels=("role", "name", "version", "digest", "run_id")
        )
        served = self._models.current
        for role, engine in (("model", served.model), ("blind", served.blind)):
            if engine is not None:
                known = [str(engine.provenance.get(name, "")) for name in ("name", "version", "digest", "run_id")]
                info.add_metric([role, *known], 1)
        yield info
