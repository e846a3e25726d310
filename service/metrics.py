"""Every metric's name, labels and buckets in one place, so that dashboards and alerts have one page to read."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from service.contract import CacheResult
from service.errors import Broken, DeadlinePassed, Draining, NotReady, Overloaded
from service.gpu import Gpu
from service.machine import memory_used_ratio

MODEL = ("task", "model")

# From a recommendation on an idle machine (5 ms) to the longest that a caller plausibly waits for (a minute); each
# bound is 2 to 3 times the one before, so that a quantile read from the buckets is off by at most that factor.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A phase is a part of a request: the queue of an idle model takes tenths of a millisecond, so three bounds more below.
PHASE_SECONDS = (0.0005, 0.001, 0.0025, *REQUEST_SECONDS)
# From a small model that decodes alone (0.5 ms) to a large one whose steps are full.
TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# What another row in a step gains shrinks with every doubling, so the bounds double up to what one step takes in.
STEP_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# A series that appears with its first event shows Prometheus no increase, so these stand at 0 from the start.
STATUSES = ("200", "429", "500", "503", "504")
REASONS = tuple(kind.reason for kind in (Overloaded, Draining, NotReady, Broken, DeadlinePassed))


class Metrics:
    """The families of one process, in the registry given.

    Args:
        registry: the process's own; prometheus-client's global default would be shared by two services in one process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("heedful_requests", "Requests answered", (*MODEL, "status"), registry=registry)
        self.request_seconds = Histogram(
            "heedful_request_duration_seconds",
            "From request to answer",
            MODEL,
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.phase_seconds = Histogram(
            "heedful_phase_duration_seconds",
            "Part of an answered request: queue, encode or decode",
            (*MODEL, "phase"),
            buckets=PHASE_SECONDS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "heedful_time_to_first_token_seconds",
            "From request to the first token of an answered request that generates",
            MODEL,
            buckets=PHASE_SECONDS,
            registry=registry,
        )
        self.token_seconds = Histogram(
            "heedful_time_per_output_token_seconds",
            "Mean time from one token of a row to the next",
            MODEL,
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "heedful_tokens",
            "Tokens of answered requests: source or generated",
            (*MODEL, "direction"),
            registry=registry,
        )
        self.padding_tokens = Counter(
            "heedful_padding_tokens",
            "Tokens that were computed beside the source tokens of rows, to fill them up",
            MODEL,
            registry=registry,
        )
        self.step_rows = Histogram(
            "heedful_step_rows", "Rows that shared one step of the model", MODEL, buckets=STEP_ROWS, registry=registry
        )
        self.running_rows = Gauge("heedful_running_rows", "Rows in the model now", MODEL, registry=registry)
        self.waiting_rows = Gauge("heedful_waiting_rows", "Rows that wait for the model now", MODEL, registry=registry)
        self.backlog_seconds = Gauge(
            "heedful_backlog_seconds",
            "Seconds until all accepted rows are done at the measured rate",
            MODEL,
            registry=registry,
        )
        self.rejected = Counter(
            "heedful_rejected",
            "Requests not answered: overloaded, draining, not_ready, device_lost or deadline",
            (*MODEL, "reason"),
            registry=registry,
        )
        self.cache = Counter(
            "heedful_cache",
            "Answers where the cache is on: hit from memory, joined to an equal request under way, miss computed",
            (*MODEL, "result"),
            registry=registry,
        )
        self.model_info = Gauge(
            "heedful_model_info", "1 for each model served", (*MODEL, "version", "precision"), registry=registry
        )
        self.ready = Gauge(
            "heedful_ready",
            "1 where the model has answered its own example; the sum over replicas is how many can answer",
            MODEL,
            registry=registry,
        )
        self.memory_used = Gauge(
            "heedful_memory_used_ratio",
            "Share of the container's or else the machine's memory that is in use",
            registry=registry,
        )
        self.memory_used.set_function(memory_used_ratio)
        self._registry = registry
        ProcessCollector(registry=registry)

    def watch_gpu(self, gpu: Gpu) -> None:
        """Tell of the card that this process computes on; without one there are no such series."""
        memory = Gauge("heedful_gpu_memory_bytes", "GPU memory in use, by whomever", ("gpu",), registry=self._registry)
        memory.labels(gpu.name).set_function(gpu.memory_used_bytes)
        busy = Gauge(
            "heedful_gpu_utilization_ratio",
            "Part of the last moment in which the GPU computed",
            ("gpu",),
            registry=self._registry,
        )
        busy.labels(gpu.name).set_function(gpu.utilization_ratio)

    def observer(self, task: str, model: str) -> "Observer":
        """What the engine and the gateway of one model report to."""
        return Observer(self, task, model)


class Observer:
    """The metrics of one model. Every method may be called from any thread.

    The gateway calls `request`, the host `describe`, `ready`, `hide_readiness` and `cached`; the engine all others.
    """

    def __init__(self, metrics: Metrics, task: str, model: str) -> None:
        self._metrics = metrics
        self._labels = (task, model)
        self._seconds = metrics.request_seconds.labels(task, model)
        self._queue = metrics.phase_seconds.labels(task, model, "queue")
        self._encode = metrics.phase_seconds.labels(task, model, "encode")
        self._decode = metrics.phase_seconds.labels(task, model, "decode")
        self._source = metrics.tokens.labels(task, model, "source")
        self._generated = metrics.tokens.labels(task, model, "generated")
        self._first_token = metrics.first_token_seconds.labels(task, model)
        self._token = metrics.token_seconds.labels(task, model)
        self._padding = metrics.padding_tokens.labels(task, model)
        self._step_rows = metrics.step_rows.labels(task, model)
        self._ready = metrics.ready.labels(task, model)
        for status in STATUSES:
            metrics.requests.labels(*self._labels, status)
        for reason in REASONS:
            metrics.rejected.labels(*self._labels, reason)

    def request(self, status: int, seconds: float) -> None:
        """A request got its HTTP status, `seconds` after it came."""
        self._metrics.requests.labels(*self._labels, str(status)).inc()
        self._seconds.observe(seconds)

    def describe(self, *, version: str, precision: str) -> None:
        """Which model is served."""
        self._metrics.model_info.labels(*self._labels, version, precision).set(1)

    def ready(self) -> None:
        """The model has answered its own example."""
        self._ready.set(1)

    def hide_readiness(self) -> None:
        """No series says whether the model is ready, so that it is in no sum of those that callers reach."""
        self._metrics.ready.remove(*self._labels)

    def lost(self) -> None:
        """The model answers nothing any more."""
        self._ready.set(0)

    def phases(self, *, queue_s: float, encode_s: float, decode_s: float) -> None:
        """Where the time of an answered request went, in seconds."""
        self._queue.observe(queue_s)
        self._encode.observe(encode_s)
        self._decode.observe(decode_s)

    def tokens(self, *, source: int, generated: int) -> None:
        """What an answered request read and wrote."""
        self._source.inc(source)
        self._generated.inc(generated)

    def generation(self, *, first_token_s: float, paces_s: Iterable[float]) -> None:
        """How soon an answered request began to write, and for each of its rows the mean time between tokens."""
        self._first_token.observe(first_token_s)
        for pace_s in paces_s:
            self._token.observe(pace_s)

    def step(self, rows: int, padding_tokens: int) -> None:
        """One step of the model brought `rows` rows forward; its graphs computed so many tokens that are no row's."""
        self._step_rows.observe(rows)
        if padding_tokens:
            self._padding.inc(padding_tokens)

    def rejected(self, reason: str) -> None:
        """A request was not answered, see `ServiceError.reason`."""
        self._metrics.rejected.labels(*self._labels, reason).inc()

    def cached(self, result: CacheResult) -> None:
        """A request was answered, and where its answer came from."""
        self._metrics.cache.labels(*self._labels, result).inc()

    def watch(
        self, *, running_rows: Callable[[], float], waiting_rows: Callable[[], float], backlog_s: Callable[[], float]
    ) -> None:
        """Read these gauges through these functions when somebody scrapes, so that a step pays nothing for them."""
        self._metrics.running_rows.labels(*self._labels).set_function(running_rows)
        self._metrics.waiting_rows.labels(*self._labels).set_function(waiting_rows)
        self._metrics.backlog_seconds.labels(*self._labels).set_function(backlog_s)


def render(registry: CollectorRegistry) -> bytes:
    """The registry's samples in the Prometheus text format."""
    return generate_latest(registry)
