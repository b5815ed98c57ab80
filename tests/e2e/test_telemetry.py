"""What an operator sees: metrics that add up, probes, and logs in which nothing secret occurs."""

import re
import time

from client import HOST, Request
from harness import deliver, sample, samples, unique_body
from providers import PROVIDERS
from stack import get


def test_probes(stack):
    assert get(stack.admin_url("/livez"))[0] == 200
    assert get(stack.admin_url("/readyz"))[0] == 200


def test_the_metrics_page_is_well_formed(stack):
    deliver(stack, stack.sign("github", unique_body()))
    found = samples(stack.metrics())
    names = {name for name, _ in found}
    assert names >= {
        "hookwarden_checks_total",
        "hookwarden_check_duration_seconds_bucket",
        "hookwarden_body_bytes_total",
        "hookwarden_bodies_in_flight_bytes",
        "hookwarden_leases",
        "hookwarden_build_info",
        "hookwarden_config_generation",
        "hookwarden_config_loaded_timestamp_seconds",
        "hookwarden_config_reloads_total",
        "hookwarden_config_last_reload_successful",
        "hookwarden_observe_endpoints",
        "hookwarden_panics_total",
    }
    assert sample(stack.metrics(), "hookwarden_observe_endpoints") == 1
    assert sample(stack.metrics(), "hookwarden_config_last_reload_successful") == 1
    assert sample(stack.metrics(), "hookwarden_panics_total") == 0
    assert sample(stack.metrics(), "hookwarden_bodies_in_flight_bytes") == 0


def test_the_counters_are_what_was_sent(stack):
    good = stack.sign("github", unique_body())
    unknown = stack.sign("github", unique_body(), url=f"https://{HOST}/nowhere")
    observed = stack.sign("observed", unique_body(), url=f"https://{HOST}/observed").one_byte_changed()
    before = stack.metrics()
    sent = [good] * 3 + [good.one_byte_changed()] * 2 + [stack.sign("smartsheet", challenge=True)] * 4 + [unknown, observed]
    for request in sent:
        deliver(stack, request)
    after = stack.metrics()
    more = lambda name, **labels: sample(after, name, **labels) - sample(before, name, **labels)
    checks = lambda endpoint, decision, reason: more("hookwarden_checks_total", endpoint=endpoint, decision=decision, reason=reason)

    assert checks("github", "allow", "verified") == 3
    assert checks("github", "deny", "signature_mismatch") == 2
    assert checks("smartsheet", "answer", "challenge") == 4
    assert checks("", "deny", "unknown_endpoint") == 1
    assert checks("observed", "observe", "signature_mismatch") == 1
    assert more("hookwarden_check_duration_seconds_count", endpoint="github") == 5
    assert more("hookwarden_body_bytes_total", endpoint="github") == 5 * len(good.body)
    assert total(after) - total(before) == len(sent)


def total(text):
    return sum(value for (name, _), value in samples(text).items() if name == "hookwarden_checks_total")


def test_no_label_is_written_by_a_sender(stack):
    """Every label value comes from the configuration or from a closed list."""
    name = f"sender{time.time_ns()}"
    request = Request("POST", f"https://{HOST}/{name}?{name}={name}", ((f"x-{name}", name),), name.encode())
    deliver(stack, request)
    deliver(stack, request.change(url=f"https://{HOST}/github"))
    assert name not in stack.metrics()


def test_envoy_believes_hookwarden_healthy(stack):
    assert stack.proxies["envoy"].statistic("cluster.hookwarden.membership_healthy") == 1
    assert stack.proxies["envoy"].statistic("cluster.hookwarden.health_check.success") >= 1


def test_a_log_line_says_what_is_promised(stack):
    request = stack.sign("github", unique_body(), url=f"https://{HOST}/github?query=unseen")
    line = deliver(stack, request.one_byte_changed()).decision
    expected = {
        "level": "INFO",
        "message": "check",
        "endpoint": "github",
        "provider": "github",
        "decision": "deny",
        "reason": "signature_mismatch",
        "method": "POST",
        "path": "/github",
        "body_bytes": len(request.body),
    }
    assert expected.items() <= line.items()
    assert {"timestamp", "request_id", "duration_us"} <= line.keys()
    assert deliver(stack, request).decision["level"] == "DEBUG"


def test_nothing_secret_is_in_any_log_or_metric(stack):
    """Canaries: everything that was secret, signed or said in this run's deliveries, looked for in every log there is.
    hookwarden logs at `debug` here, so this is not about what is left out at `info`."""
    sent = canary_requests(stack)
    canaries = secret_texts(stack)
    for request, client_ip in sent:
        deliver(stack, request, client_ip=client_ip)
        canaries |= sensitive_parts(request)
    assert len(canaries) > 60 and all(len(canary) >= 12 for canary in canaries)

    pages = {"metrics": stack.metrics()} | {program.name: program.log_text() for program in stack.programs()}
    found = {(name, canary) for name, text in pages.items() for canary in canaries if canary in text}
    assert not found


def canary_requests(stack):
    """Of every preset: good, tampered, late, its handshake; and secrets where they do not belong."""
    requests = []
    for provider in PROVIDERS:
        good = stack.sign(provider.name, unique_body(provider.name))
        if provider.challenge:
            requests.append(stack.sign(provider.name, challenge=True))
        requests += [good, good.one_byte_changed(), stack.sign(provider.name, unique_body(), now=time.time() - 3600)]
    token = (stack.secrets / "verify-token").read_text().strip()
    url = f"https://{HOST}/"
    requests += [
        Request("GET", f"{url}verify-token?verify_token=wrong-{token}"),
        Request("GET", f"{url}nowhere?verify_token={token}"),
        Request("POST", f"{url}github?secret={token}", (("X-Hub-Signature-256", f"sha256={token}"), ("X-Token", token)), token.encode()),
        Request("POST", f"{url}bracken", (("Authorization", f"Bearer {token}"),), unique_body()),
    ]
    return [(request, "203.0.113.90") for request in requests]


def secret_texts(stack):
    """The secrets themselves, with and without what stands before them; of keys, every line."""
    texts = set()
    for file in stack.secrets.iterdir():
        for line in file.read_text().splitlines():
            if not line.startswith("-----"):
                texts |= {line, line.removeprefix("whsec_")}
    return {text for text in texts if len(text) >= 12}


# Whose values are nobody's secret, and in logs by their nature or by accident.
PUBLIC_HEADERS = {"content-type", "date", "x-slack-request-timestamp", "webhook-timestamp"}


def sensitive_parts(request):
    """Header values and the long words in them, the body, and the query's values."""
    parts = {request.body.decode(), *re.findall(r"body-\d+-\d+", request.body.decode())}
    for name, value in request.headers:
        if name.lower() not in PUBLIC_HEADERS:
            parts |= {value, *re.findall(r"[A-Za-z0-9+/_=-]{16,}", value)}
    parts |= set(re.findall(r"=([^&]+)", request.target.partition("?")[2]))
    return {part for part in parts if len(part) >= 12}
