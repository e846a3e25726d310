"""What an operator sees of a request: its spans at an OTLP collector and its line in the log, from a real service."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service import tracing
from service.rows import Batch
from service.tracing import is_asked_for
from tests.serving import Service, start, stop

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TEXT = {"inputs": "Where is the station? I have lost my umbrella."}


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Span]]]:
    """A collector's address, and the spans that it was sent."""
    spans: list[Span] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/traces"
            spans.extend(span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


def ask(service: Service, body: object, request_id: str, **headers: str) -> httpx.Response:
    given = {"X-Request-ID": request_id, **headers}
    return httpx.post(f"{service.url}/v1/translation", json=body, headers=given, timeout=60)


def access_log(service: Service) -> dict[str, dict[str, Any]]:
    """The lines about requests, by their ids; every other line but the first one is JSON too."""
    records = [json.loads(line) for line in service.log.read_text().splitlines() if not line.startswith("Heedful is")]
    return {each["request_id"]: each for each in records if each["logger"] == "heedful.access"}


def test_a_request_is_traced_through_its_phases_and_logged_without_its_text(
    tmp_path: Path, collector: tuple[str, list[Span]]
) -> None:
    endpoint, spans = collector
    log_file = tmp_path / "log"
    service = start("embedded", log_file, HEEDFUL_LOG_FORMAT="json", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert ask(service, TEXT, "whole", traceparent=f"00-{TRACE}-{CALLER}-01").status_code == 200
    assert ask(service, {**TEXT, "stream": True}, "streamed").status_code == 200
    assert ask(service, {"inputs": 1}, "wrong").status_code == 422
    assert ask(service, TEXT, "late", **{"X-Request-Timeout-Ms": "1"}).status_code == 504
    stop(service)

    requests = {attributes(span)["heedful.request_id"]: span for span in spans if span.kind == Span.SPAN_KIND_SERVER}
    assert set(requests) == {"whole", "streamed", "wrong", "late"}
    whole = requests["whole"]
    assert (whole.name, whole.trace_id.hex(), whole.parent_span_id.hex()) == ("POST /v1/translation", TRACE, CALLER)
    assert attributes(whole) == {
        "http.request.method": "POST",
        "http.route": "/v1/translation",
        "http.response.status_code": 200,
        "heedful.task": "translation",
        "heedful.model": "en-fr",
        "heedful.request_id": "whole",
    }
    for request_id in ("whole", "streamed"):
        request = requests[request_id]
        phases = {span.name: span for span in spans if span.parent_span_id == request.span_id}
        assert set(phases) == {"queue", "encode", "decode"}
        queue, encode, decode = phases["queue"], phases["encode"], phases["decode"]
        times = [request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
        times += [encode.end_time_unix_nano, decode.end_time_unix_nano, request.end_time_unix_nano]
        assert all(later - earlier > -1_000_000 for earlier, later in pairwise(times)), times
        counts = attributes(decode)
        assert counts["heedful.rows"] == 2
        assert counts["heedful.generated_tokens"] / 2 <= counts["heedful.steps"] <= counts["heedful.generated_tokens"]
    assert attributes(requests["wrong"])["http.response.status_code"] == 422
    assert requests["wrong"].status.code == Status.STATUS_CODE_UNSET
    assert requests["late"].status.code == Status.STATUS_CODE_ERROR

    log = access_log(service)
    assert {request_id: record["status"] for request_id, record in log.items() if request_id in requests} == {
        "whole": 200,
        "streamed": 200,
        "wrong": 422,
        "late": 504,
    }
    for request_id, span in requests.items():
        record = log[request_id]
        assert (record["task"], record["model"]) == ("translation", "en-fr")
        assert record["trace_id"] == span.trace_id.hex()
    for request_id in ("whole", "streamed"):
        record = log[request_id]
        assert 0 < record["queue_ms"] + record["encode_ms"] + record["decode_ms"] <= record["duration_ms"]
    for word in ("station", "gare", "umbrella", "parapluie"):
        assert word not in service.log.read_text()


def test_what_another_process_does_for_a_request_belongs_to_its_trace(
    collector: tuple[str, list[Span]], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, spans = collector
    assert tracing.carrier() == {}
    with tracing.continued({"traceparent": f"00-{TRACE}-{CALLER}-01"}):
        tracing.record(Batch(0, range(1), (), 1, time.monotonic()))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    tracing.configure()
    request = tracing.RequestSpan("/v1/translation", {"traceparent": f"00-{TRACE}-{CALLER}-01"}, {})
    with request.current():
        carried = tracing.carrier()
    with tracing.continued(carried):
        tracing.record(Batch(1, range(1), (), 1, time.monotonic()))
    tracing.record(Batch(2, range(1), (), 1, time.monotonic()))
    request.end(200)
    tracing.shutdown()
    (server,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    (inside, outside) = (span for span in spans if span.name == "queue")
    assert (inside.trace_id, inside.parent_span_id) == (bytes.fromhex(TRACE), server.span_id)
    assert outside.trace_id != inside.trace_id


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "heedful"),
        ({"OTEL_SERVICE_NAME": "own"}, "own"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,service.name=own"}, "own"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs", "OTEL_SERVICE_NAME": "own"}, "own"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}, "heedful"),
    ],
)
def test_the_service_is_named_by_the_standard_variables_or_ours(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **environment}.items():
        monkeypatch.setenv(variable, value)
    tracing.configure()
    provider = tracing._Exporting.provider
    tracing.shutdown()
    assert provider is not None
    assert provider.resource.attributes["service.name"] == name


def test_the_texts_are_logged_and_nothing_is_traced_where_the_operator_says_so(tmp_path: Path) -> None:
    service = start("embedded", tmp_path / "log", HEEDFUL_LOG_FORMAT="json", HEEDFUL_LOG_TEXT="true")
    assert ask(service, TEXT, "shown").status_code == 200
    stop(service)
    record = access_log(service)["shown"]
    assert record["request"] == {"inputs": [TEXT["inputs"]]}
    assert "trace_id" not in record


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_traces_are_switched_on_by_the_standard_variables(environment: dict[str, str], expected: bool) -> None:
    assert is_asked_for(environment) is expected
