"""OpenTelemetry spans of a request, from the gateway to the engine's phases; nothing at all unless `OTEL_*` asks."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.rows import Batch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "heedful"

logger = logging.getLogger("heedful.tracing")


class _Exporting:
    """Where this process's spans go; None while traces are off."""

    provider: "TracerProvider | None" = None
    tracer: "Tracer | None" = None


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces: an exporter or an endpoint is named, and nothing disables it."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (not exporter and any(environment.get(name) for name in ENDPOINTS))


def configure() -> None:
    """Export this process's spans by OTLP over HTTP where `OTEL_*` asks for it.

    Sampler, batching, headers, resource and propagators are those of the same variables, read by OpenTelemetry itself.
    """
    if not is_asked_for(os.environ) or _Exporting.tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        how = "pip install --constraint constraints.txt -e '.[cpu,otel]' in the checkout"
        logger.warning("OTEL_* asks for traces, which need the extra: %s; there are none now", how)
        return
    # What is given here wins over the environment, where either of two variables may name the service.
    is_named = bool(OTELResourceDetector().detect().attributes.get(SERVICE_NAME))
    provider = TracerProvider(resource=Resource.create({} if is_named else {SERVICE_NAME: SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _Exporting.provider, _Exporting.tracer = provider, provider.get_tracer(SERVICE)


def shutdown() -> None:
    """Send what has not been sent."""
    if _Exporting.provider is not None:
        _Exporting.provider.shutdown()
    _Exporting.provider = _Exporting.tracer = None


class RequestSpan:
    """The span of one HTTP request; below it stand those of its phases. While traces are off it does nothing.

    Args:
        route: of the request.
        headers: may carry the caller's `traceparent`.
        attributes: by the names of the semantic conventions, or with the prefix `heedful.`.
    """

    def __init__(self, route: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> None:
        self._span: Span | None = None
        if _Exporting.tracer is None:
            return
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        self._span = _Exporting.tracer.start_span(
            f"POST {route}",
            context=propagate.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "http.route": route, **attributes},
        )

    @property
    def trace_id(self) -> str | None:
        """In hexadecimal, for the log; None while traces are off."""
        return None if self._span is None else f"{self._span.get_span_context().trace_id:032x}"

    @contextmanager
    def current(self) -> Iterator[None]:
        """What is recorded within, also by tasks begun there, belongs to this request."""
        if self._span is None:
            yield
            return
        from opentelemetry.trace import use_span

        with use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield

    def end(self, status: int) -> None:
        """The request got its HTTP status."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def carrier() -> dict[str, str]:
    """The current request's trace context, to be taken to another process; empty while traces are off."""
    carried: dict[str, str] = {}
    if _Exporting.tracer is not None:
        from opentelemetry import propagate

        propagate.inject(carried)
    return carried


@contextmanager
def continued(carried: Mapping[str, str]) -> Iterator[None]:
    """What is recorded within belongs to the request of which another process took this `carrier`."""
    if _Exporting.tracer is None or not carried:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(carried))
    try:
        yield
    finally:
        context.detach(token)


def record(batch: Batch) -> None:
    """Spans `queue`, `encode` and `decode` of a batch below the current request, as far as it came.

    Rows of a batch may be encoded in several iterations; `encode` is the sum of these, put before all steps.
    """
    if (tracer := _Exporting.tracer) is None:
        return
    now = time.monotonic()
    epoch_s = time.time() - now
    joined_at, done_at = batch.joined_at or now, batch.done_at or now
    stepping_at = min(joined_at + batch.encode_s, done_at)
    generated = sum(len(output.tokens) for output in list(batch.outputs.values()))  # whose thread may go on
    rows = {"heedful.rows": len(batch.ids)}
    phases: list[tuple[str, float, float, dict[str, int]]] = [("queue", batch.submitted_at, joined_at, rows)]
    if batch.joined_at:
        source = {"heedful.source_tokens": batch.tokens}
        steps = {"heedful.steps": batch.steps, "heedful.generated_tokens": generated}
        phases += [("encode", joined_at, stepping_at, rows | source), ("decode", stepping_at, done_at, rows | steps)]
    for name, start, end, attributes in phases:
        span = tracer.start_span(name, start_time=int((epoch_s + start) * 1e9), attributes=attributes)
        span.end(end_time=int((epoch_s + end) * 1e9))
