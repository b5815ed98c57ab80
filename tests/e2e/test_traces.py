"""Spans: a provider's trace goes through Envoy's span to hookwarden's, and nothing that is secret goes along."""

import http.server
import secrets
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import conftest
from harness import Variant, deliver, make_stack, unique_body
from nginx_server import NginxStack
from stack import wait_for


class Collector:
    """Takes spans over HTTP, as an OpenTelemetry collector does; answers `status`."""

    def __init__(self):
        self.spans, self.status = [], 200
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])) if "content-length" in self.headers else self.chunks()
                if collector.status == 200 and self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def chunks(self):
                """Envoy's exporter does not say how long its message is."""
                whole = b""
                while length := int(self.rfile.readline(), 16):
                    whole += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                return whole

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def take(self, request):
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.spans += [(service, span) for span in scope.spans]

    def of(self, service, trace):
        return [span for name, span in list(self.spans) if name == service and span.trace_id.hex() == trace]


def told(span):
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def tracing(port):
    """Envoy's own tracing, to the same collector."""
    return Variant(
        "tracing",
        (
            (
                "          codec_type: AUTO\n",
                "          codec_type: AUTO\n"
                "          tracing:\n"
                "            provider:\n"
                "              name: envoy.tracers.opentelemetry\n"
                "              typed_config:\n"
                '                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig\n'
                "                service_name: envoy\n"
                "                http_service:\n"
                f"                  http_uri: {{ uri: 'http://127.0.0.1:{port}/v1/traces', cluster: collector, timeout: 1s }}\n",
            ),
            (
                "  clusters:\n",
                "  clusters:\n"
                "  - name: collector\n"
                "    type: STATIC\n"
                "    load_assignment:\n"
                "      cluster_name: collector\n"
                "      endpoints:\n"
                f"      - lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}]\n",
            ),
        ),
    )


def make_traced(collector, sample=1):
    def make(directory):
        stack = make_stack(directory)
        stack.config.write_text(f"traces: {{ otlp: 'http://127.0.0.1:{collector.port}', sample: {sample} }}\n" + stack.config.read_text())
        stack.hookwarden.environment = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
        return stack

    return make


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture
def traced(collector):
    with conftest.Running(make_traced(collector)) as stack:
        yield stack
    conftest.RUNNING.remove(stack)


def begun(trace, sampled="01"):
    return ("traceparent", f"00-{trace}-{secrets.token_hex(8)}-{sampled}")


def test_a_providers_trace_goes_through_envoy(traced, collector):
    trace = secrets.token_hex(16)
    variant = tracing(collector.port)
    request = traced.sign("github", unique_body()).add(begun(trace))
    seen = deliver(traced, request, variant=variant)
    assert seen.outcome[:3] == (200, "allow", "verified")
    (span,) = wait_for("hookwarden's span", lambda: collector.of("hookwarden", trace))
    envoys = wait_for("Envoy's spans", lambda: (spans := collector.of("envoy", trace)) and len(spans) > 1 and spans)
    assert span.parent_span_id in {other.span_id for other in envoys}, "under Envoy's own span of its question"
    assert span.name == "hookwarden check" and span.end_time_unix_nano >= span.start_time_unix_nano
    assert told(span) == {
        "hookwarden.decision": "allow",
        "hookwarden.reason": "verified",
        "hookwarden.endpoint": "github",
        "hookwarden.provider": "github",
        "hookwarden.verified_by": "signature",
        "hookwarden.secret_id": "main",
        "hookwarden.request_id": seen.response.request_id,
        "http.request.body.size": len(request.body),
    }


def of_check(collector, response):
    """The span of one check, whatever trace it is in."""
    found = lambda: [span for name, span in list(collector.spans) if told(span).get("hookwarden.request_id") == response.request_id]
    (span,) = wait_for("the span", found)
    return span


def test_without_envoys_tracing_a_verified_providers_span_is_the_parent(traced, collector):
    trace = secrets.token_hex(16)
    parent = begun(trace)
    seen = deliver(traced, traced.sign("github", unique_body()).add(parent))
    span = of_check(collector, seen.response)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent[1].split("-")[2])
    # One that is not to be kept is not, and nobody's rubbish is a parent.
    unkept = secrets.token_hex(16)
    deliver(traced, traced.sign("github", unique_body()).add(begun(unkept, "00")))
    for odd in ("rubbish", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{unkept}-{'1' * 16}-01"):
        seen = deliver(traced, traced.sign("github", unique_body()).add(("traceparent", odd)))
        assert seen.outcome[:3] == (200, "allow", "verified")
        assert of_check(collector, seen.response).parent_span_id == b""
    assert not collector.of("hookwarden", unkept)


def test_a_stranger_chooses_neither_the_trace_nor_what_is_kept(traced, collector):
    for sampled in ("01", "00"):
        trace = secrets.token_hex(16)
        seen = deliver(traced, traced.sign("github", unique_body()).one_byte_changed().add(begun(trace, sampled)))
        span = of_check(collector, seen.response)
        assert span.trace_id.hex() != trace and span.parent_span_id == b""
        assert [link.trace_id.hex() for link in span.links] == [trace]
        assert told(span)["hookwarden.reason"] == "signature_mismatch" and "hookwarden.secret_id" not in told(span)
        assert span.status.code == 0, "a rejection is an outcome and no error"


def test_through_nginx_the_providers_span_is_the_parent(collector):
    def make(directory):
        stack = NginxStack(directory)
        stack.config.write_text(f"traces: {{ otlp: 'http://127.0.0.1:{collector.port}/v1/traces' }}\n" + stack.config.read_text())
        stack.hookwarden.environment = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
        return stack

    with conftest.Running(make) as stack:
        trace = secrets.token_hex(16)
        assert stack.send(stack.sign("github", unique_body()).add(begun(trace))).status == 200
        (span,) = wait_for("the span", lambda: collector.of("hookwarden", trace))
        assert told(span)["hookwarden.endpoint"] == "github"
    conftest.RUNNING.remove(stack)


def test_a_collector_that_fails_costs_nothing_else(traced, collector):
    collector.status = 500
    for _ in range(20):
        assert deliver(traced, traced.sign("github", unique_body())).outcome[:3] == (200, "allow", "verified")
    wait_for("the log says so", lambda: "the collector did not take traces" in traced.hookwarden.log_text(), program=traced.hookwarden)
    collector.status = 200
    trace = secrets.token_hex(16)
    deliver(traced, traced.sign("github", unique_body()).add(begun(trace)))
    wait_for("a span again", lambda: collector.of("hookwarden", trace))


def test_the_last_spans_are_sent_before_the_end(collector):
    def make(directory):
        stack = make_traced(collector)(directory)
        stack.hookwarden.environment = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        return stack

    with conftest.Running(make) as stack:
        trace = secrets.token_hex(16)
        deliver(stack, stack.sign("github", unique_body()).add(begun(trace)))
        assert not collector.of("hookwarden", trace)
        stack.hookwarden.stop()
        assert collector.of("hookwarden", trace)
    conftest.RUNNING.remove(stack)
