"""Prometheus metrics of the engines under their real names and labels, in the text format.

Only what an operator, a router or an autoscaler reads is here: queue and running counts, token
counters, latency histograms, cache use. The rest of a page is there as so many lines: the real ones
have 55 KB (vLLM) and 76 KB (SGLang).
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

VLLM_CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
SGLANG_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
VLLM_OTHER_BYTES = 46_000
SGLANG_OTHER_BYTES = 65_000

FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
BETWEEN_TOKENS_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip


@dataclass(slots=True)
class Histogram:
    """Counts of observations per bucket, in seconds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class HttpCounts:
    """Requests by endpoint and method as SGLang counts them; it never forgets an endpoint."""

    active: dict[tuple[str, str], int] = field(default_factory=dict)
    begun: dict[tuple[str, str], int] = field(default_factory=dict)

    def begin(self, endpoint: str, method: str) -> None:
        """A request has come."""
        key = endpoint, method
        self.active[key] = self.active.get(key, 0) + 1
        self.begun[key] = self.begun.get(key, 0) + 1

    def end(self, endpoint: str, method: str) -> None:
        """Its answer has been sent, or nobody waits for it any more."""
        self.active[endpoint, method] -= 1


@dataclass(slots=True)
class Statistics:
    """What an engine has counted since it started, and what it holds now.

    `shown_running` and `shown_waiting` are what SGLang's gauges say of `running` and `waiting`.
    """

    running: int = 0
    waiting: int = 0
    shown_running: int = 0
    shown_waiting: int = 0
    tokens_held: int = 0
    token_capacity: int = 1
    prompt_tokens: int = 0
    generation_tokens: int = 0
    throughput: float = 0.0
    finished: dict[str, int] = field(
        default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0}
    )
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_BUCKETS))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS_BUCKETS))
    queue_time: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS))
    request_latency: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS))

    def show(self, *, running: int) -> None:
        """Write the gauges, as SGLang does only now and then."""
        self.shown_running, self.shown_waiting = running, self.waiting

    @property
    def cache_use(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        return min(1.0, self.tokens_held / self.token_capacity)


class Exposition:
    """Builds one page of metrics; every sample gets the same labels."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        """Names are prefixed with `prefix` and a colon."""
        self._prefix = prefix
        self._labels = dict(labels)
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """Add a gauge."""
        self._add(name, "gauge", text)
        self._sample(name, value, labels)

    def counter(self, name: str, text: str, value: float) -> None:
        """Add a counter; `name` comes without `_total`."""
        self._add(f"{name}_total", "counter", text)
        self._sample(f"{name}_total", value, {})

    def counters(self, name: str, text: str, values: Mapping[str, float], *, label: str) -> None:
        """Add a counter with one sample for each value of a label."""
        self._add(f"{name}_total", "counter", text)
        for key, value in values.items():
            self._sample(f"{name}_total", value, {label: key})

    def histogram(self, name: str, text: str, histogram: Histogram) -> None:
        """Add a histogram."""
        self._add(name, "histogram", text)
        counts = histogram.counts or [0] * (len(histogram.bounds) + 1)
        seen = 0
        for bound, count in zip((*histogram.bounds, None), counts, strict=True):
            seen += count
            edge = "+Inf" if bound is None else str(float(bound))
            self._sample(f"{name}_bucket", seen, {"le": edge})
        self._sample(f"{name}_count", seen, {})
        self._sample(f"{name}_sum", histogram.total, {})

    def by_endpoint(
        self, name: str, kind: str, text: str, values: Mapping[tuple[str, str], float]
    ) -> None:
        """Add a metric of the HTTP server, which has none of the other labels."""
        self._add(name, kind, text)
        for (endpoint, method), value in values.items():
            pairs = f'endpoint="{_escape(endpoint)}",method="{_escape(method)}"'
            self._lines.append(f"{self._prefix}:{name}{{{pairs}}} {float(value)}")

    def text(self, other: bytes = b"") -> bytes:
        """Return the page, with some more lines."""
        return ("\n".join(self._lines) + "\n").encode() + other

    def _add(self, name: str, kind: str, text: str) -> None:
        full = f"{self._prefix}:{name}"
        self._lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]

    def _sample(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        pairs = ",".join(f'{k}="{_escape(v)}"' for k, v in (self._labels | dict(labels)).items())
        self._lines.append(f"{self._prefix}:{name}{{{pairs}}} {float(value)}")


def vllm_page(statistics: Statistics, *, model_name: str) -> bytes:
    """Render the page of vLLM; one engine, index 0."""
    page = Exposition("vllm", {"engine": "0", "model_name": model_name})
    page.gauge(
        "num_requests_running",
        "Number of requests in model execution batches.",
        statistics.running,
    )
    page.gauge(
        "num_requests_waiting", "Number of requests waiting to be processed.", statistics.waiting
    )
    page.gauge(
        "kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        statistics.cache_use,
    )
    page.counter("num_preemptions", "Cumulative number of preemption from the engine.", 0)
    page.counter("prompt_tokens", "Number of prefill tokens processed.", statistics.prompt_tokens)
    page.counter(
        "generation_tokens",
        "Number of generation tokens processed.",
        statistics.generation_tokens,
    )
    page.counters(
        "request_success",
        "Count of successfully processed requests.",
        statistics.finished,
        label="finished_reason",
    )
    _latencies(page, statistics, queue_name="request_queue_time_seconds")
    return page.text(_others("vllm", VLLM_OTHER_BYTES))


def sglang_page(
    statistics: Statistics, *, model_name: str, engine_type: str, http: HttpCounts | None = None
) -> bytes:
    """Render the page of SGLang; the labels are those of the scheduler of rank 0.

    Without `http` it is the page of a release that does not count requests by endpoint.
    """
    labels = {"engine_type": engine_type, "model_name": model_name}
    page = Exposition("sglang", labels | {"moe_ep_rank": "0", "pp_rank": "0", "tp_rank": "0"})
    page.gauge("num_running_reqs", "The number of running requests.", statistics.shown_running)
    queued = statistics.shown_waiting
    page.gauge("num_queue_reqs", "The number of requests in the waiting queue.", queued)
    page.gauge("num_used_tokens", "The number of used tokens.", statistics.tokens_held)
    page.gauge("token_usage", "The token usage.", statistics.cache_use)
    page.gauge("utilization", "The utilization.", statistics.cache_use)
    page.gauge("gen_throughput", "The generation throughput (token/s).", statistics.throughput)
    page.counter("prompt_tokens", "Number of prefill tokens processed.", statistics.prompt_tokens)
    page.counter(
        "generation_tokens",
        "Number of generation tokens processed.",
        statistics.generation_tokens,
    )
    page.counter("num_requests", "Number of requests processed.", sum(statistics.finished.values()))
    page.counter(
        "num_aborted_requests", "Number of requests aborted.", statistics.finished["abort"]
    )
    _latencies(page, statistics, queue_name="queue_time_seconds")
    if http is not None:
        page.by_endpoint(
            "http_requests_total",
            "counter",
            "Total number of HTTP requests by endpoint and method",
            http.begun,
        )
        page.by_endpoint(
            "http_requests_active",
            "gauge",
            "Number of currently active HTTP requests",
            http.active,
        )
    return page.text(_others("sglang", SGLANG_OTHER_BYTES))


@functools.cache
def _others(prefix: str, size: int) -> bytes:
    """Histograms that nobody here reads, of so many bytes."""
    lines: list[str] = []
    number = 0
    while sum(map(len, lines)) + len(lines) < size:
        page = Exposition(prefix, {"model_name": "simulated"})
        page.histogram(f"other_{number}_seconds", "Not simulated.", Histogram(REQUEST_BUCKETS))
        lines += page.text().decode().splitlines()
        number += 1
    return ("\n".join(lines) + "\n").encode()


def _latencies(page: Exposition, statistics: Statistics, *, queue_name: str) -> None:
    page.histogram(
        "time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        statistics.first_token,
    )
    page.histogram(
        "inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        statistics.between_tokens,
    )
    page.histogram(
        "e2e_request_latency_seconds",
        "Histogram of end-to-end request latency in seconds.",
        statistics.request_latency,
    )
    page.histogram(
        queue_name, "Histogram of time spent in the waiting queue.", statistics.queue_time
    )


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
