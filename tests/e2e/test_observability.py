"""The dashboard and the alerts that ship, held against a real Prometheus which scrapes a running hookwarden.

A panel that shows nothing and an alert that never fires look like good news. So every query of the dashboard must find
data while deliveries of every kind arrive, every alert must fire and not fire in `promtool`'s unit tests
(tests/observability), and every alert and reason must have its section in the runbook.
"""

import datetime
import json
import math
import re
import shutil
import signal
import subprocess
import time
import urllib.parse

import pytest

import conftest
from client import HOST, Http1, Request
from harness import EXTRA_ENDPOINTS, NO_BODY, samples, send, unique_body
from stack import PROXY_PROTOCOL, ROOT, Program, Stack, Unexpected, get, substitute, wait_for

SHIPPED = ROOT / "deploy" / "observability"
UNIT_TESTS = sorted((ROOT / "tests" / "observability").glob("*.yaml"))
DASHBOARD = json.loads((SHIPPED / "dashboard.json").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RUNBOOK_QUERIES = [line.strip() for block in re.findall(r"```promql\n(.*?)```", RUNBOOK, re.S) for line in block.strip().splitlines()]
SENDER = "203.0.113.44"

# Metrics that the dashboard may leave out, each with the reason.
NOT_ON_THE_DASHBOARD = {}

ENDPOINTS = """
  rotating:
    match: {{ path: /rotating }}
    provider: github
    secrets:
      - {{ id: new, file: {secrets}/github }}
      - {{ id: old, file: {secrets}/webex, until: {soon} }}
  ended:
    match: {{ path: /ended }}
    provider: github
    secrets: [{{ id: main, file: {secrets}/github, until: 2020-01-01T00:00:00Z }}]
"""


# ── a real Prometheus ────────────────────────────────────────────────────────────────────────────────────────────────


class Prometheus:
    """With the configuration that ships, but for the target, and for seconds in place of quarters of a minute."""

    def __init__(self, directory, target):
        self.directory = directory / "prometheus"
        shutil.copytree(SHIPPED, self.directory)
        self.config = self.directory / "prometheus.yaml"
        self.config.write_text(
            substitute(
                self.config.read_text(),
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                ('"127.0.0.1:9193"', f'"{target}"'),
                ("- alerts.yaml\n", "- alerts.yaml\n- texts.json\n"),
            )
        )
        (self.directory / "texts.json").write_text(json.dumps({"groups": []}))
        options = [f"--config.file={self.config}", f"--storage.tsdb.path={self.directory / 'data'}", "--web.listen-address=127.0.0.1:0"]
        self.program = Program("prometheus", ["prometheus", *options], directory)
        self._address = None

    def __enter__(self):
        self.program.start()
        said = lambda: re.search(r'msg="Listening on" address=(\S+)', self.program.log_text())
        self._address = wait_for("Prometheus says its address", said, program=self.program)[1]
        wait_for("Prometheus is ready", lambda: get(f"http://{self._address}/-/ready")[0] == 200, program=self.program)
        return self

    def __exit__(self, *_):
        self.program.stop()

    def ask(self, path, **parameters):
        """An answer of its HTTP interface; an error of a query is one of the test."""
        status, text = get(f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}")
        assert status == 200, f"{parameters}: {text}"
        return json.loads(text)["data"]

    def values(self, query):
        """The numbers that a query finds now, without those that are none."""
        found = (float(series["value"][1]) for series in self.ask("query", query=query)["result"])
        return [value for value in found if not math.isnan(value)]

    def history(self, query):
        """The same over the last ten seconds, as a graph asks."""
        now = time.time()
        result = self.ask("query_range", query=query, start=now - 10, end=now, step=1)["result"]
        return [value for series in result for _, value in series["values"] if value != "NaN"]

    def scrape_again(self):
        """Waits for a scrape that began after now, and for the rules to have been evaluated since."""
        now = time.time()
        sampled = lambda query: self.values(f"timestamp({query})")
        wait_for("another scrape", lambda: min(sampled("up"), default=0) > now, program=self.program)
        last = 'instance_endpoint_decision_reason:hookwarden_checks:increase5m'
        wait_for("another evaluation", lambda: min(sampled(last), default=now + 1) > now, program=self.program)

    def rules(self, kind):
        return [rule for group in self.ask("rules", type=kind)["groups"] for rule in group["rules"]]

    def alert(self, name):
        """The state of an alert: inactive, pending or firing."""
        return next(rule["state"] for rule in self.rules("alert") if rule["name"] == name)


@pytest.fixture(scope="module")
def watched():
    """A stack with an application that fails when asked to, and the Prometheus that scrapes it."""

    def make(directory):
        soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        extra = (EXTRA_ENDPOINTS + ENDPOINTS).format(secrets=directory / "secrets", soon=soon)
        stack = Stack(directory, extra, (PROXY_PROTOCOL,), application=ROOT / "tests" / "e2e" / "fickle.py")
        stack.config.write_text("watch: false\n" + stack.config.read_text())
        (stack.secrets / "stripe-test").write_text("whsec_a_secret_of_the_tests_0123456789\n")
        return stack

    with conftest.Running(make) as stack, Prometheus(stack.directory, stack.admin_url("").removeprefix("http://")) as prometheus:
        yield stack, prometheus
    conftest.RUNNING.remove(stack)


# ── deliveries of every kind ─────────────────────────────────────────────────────────────────────────────────────────


class Traffic:
    """Rounds of deliveries in which everything occurs that a panel shows."""

    def __init__(self, stack, prometheus):
        self._stack, self._prometheus = stack, prometheus
        at = lambda path: {"url": f"https://{HOST}/{path}"}
        sign = lambda endpoint, **options: stack.sign(endpoint, unique_body(), **options)
        github, stripe = sign("github"), sign("stripe")
        refused = sign("slack")
        self._requests = [
            github,
            github.one_byte_changed(),
            stripe,  # the first time; then it is a replay
            sign("stripe", now=time.time() - 3600),
            sign("rotating", arguments=["--secret", "new"], **at("rotating")),
            sign("rotating", arguments=["--secret", "old"], **at("rotating")),
            sign("github", **at("ended")),
            sign("observed", **at("observed")).one_byte_changed(),
            sign("github", **at("nowhere")),
            stack.sign("smartsheet", challenge=True),
            stack.sign("verify-token", challenge=True),
            Request("POST", f"https://{HOST}/verify-token", (), unique_body()),
            refused.add(("x-script", "500")),
            sign("webex").add(("x-script", "reset")),
        ]
        self._first = True

    def round(self):
        """Everything once, and Prometheus has seen it."""
        for request in self._requests:
            self._stack.send(request, SENDER)
        send(self._stack, self._requests[0], variant=NO_BODY)  # a proxy that is not set up rightly
        if self._first:
            self._first = False
            self._nobody_waits_for()
        self._prometheus.scrape_again()

    def _nobody_waits_for(self):
        """A delivery whose provider hangs up before the application has answered."""
        request = self._stack.sign("bracken", unique_body()).add(("x-script", "hang"))
        with pytest.raises(TimeoutError), Http1(self._stack.edge, timeout=0.3) as connection:
            connection.send(request)


@pytest.fixture(scope="module")
def traffic(watched):
    return Traffic(*watched)


# ── the dashboard's queries, as Grafana would ask them ───────────────────────────────────────────────────────────────


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    """(panel, query) for every query of every panel."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def variables():
    return {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def filled(text, **chosen):
    """A query with Grafana's variables replaced; of those that are not chosen, everything is."""
    values = {name: variable.get("allValue") for name, variable in variables().items()} | chosen
    values |= {"__rate_interval": "4s", "__range": "1h", "__interval": "1s"}
    text = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], text)
    assert "$" not in text, text
    return text


def metric_names(text):
    """What looks like a metric of ours in a query: (as exported, as recorded)."""
    names = set(re.findall(r"[a-z0-9_:]*hookwarden_[a-z0-9_:]+", re.sub(r'"[^"]*"', "", text)))
    return {name for name in names if ":" not in name}, {name for name in names if ":" in name}


def exported(stack):
    return {name for name, _ in samples(stack.metrics())}


def test_every_panel_shows_data(watched, traffic, figure):
    stack, prometheus = watched
    shown = [(title, filled(query)) for title, query in queries()]
    dark = list(shown)

    def all_show():
        traffic.round()
        dark[:] = [(title, query) for title, query in dark if not (prometheus.values(query) and prometheus.history(query))]
        return not dark

    begun = time.monotonic()
    try:
        wait_for("data in every panel", all_show, deadline=30)
    except Unexpected:
        pytest.fail("\n".join(f"{title}: {query}" for title, query in dark))
    figure(f"dashboard: {len(shown)} queries of {len(panels())} panels, all with data after {time.monotonic() - begun:.1f} s")

    # And with one of each chosen: not all find something then, but none is an error.
    chosen = {"job": "hookwarden", "instance": "127.0.0.1:1", "endpoint": "(github|verify-token)"}
    for _, query in queries():
        prometheus.values(filled(query, **chosen))


def test_the_variables_offer_something_to_choose(watched, traffic):
    _, prometheus = watched
    traffic.round()
    offered = {}
    for name, variable in variables().items():
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        ask = lambda: prometheus.ask(f"label/{label}/values", **{"match[]": filled(selector)})
        offered[name] = wait_for(f"values of {name}", ask)
    assert offered["job"] == ["hookwarden"]
    assert {"github", "stripe", "verify-token", "observed"} <= set(offered["endpoint"])


def test_annotations_are_queries(watched):
    _, prometheus = watched
    prometheus.scrape_again()
    for annotation in DASHBOARD["annotations"]["list"]:
        if query := annotation.get("target", {}).get("expr"):
            found = prometheus.values(filled(query))
            assert found or "ALERTS" in query, query


def test_the_dashboard_is_well_formed():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not taken & cells, panel["title"]
        taken |= cells
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    for panel in panels():
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["type"] in {entry["id"] for entry in DASHBOARD["__requires"]}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert DASHBOARD["id"] is None, "an id would make the import overwrite something"


# ── the rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_what_ships():
    promtool("check", "rules", SHIPPED / "recording.yaml", SHIPPED / "alerts.yaml")
    promtool("check", "config", SHIPPED / "prometheus.yaml")


def test_promtool_runs_the_unit_tests():
    promtool("test", "rules", *UNIT_TESTS)


FIRING = r"""- (?:\{ )?expr: 'ALERTS\{alertname="(\w+)",alertstate="firing"\}'(, eval_time: \w+, exp_samples: \[\] \})?"""


def test_every_alert_fires_and_does_not_fire_in_a_unit_test(watched):
    cases = [case for file in UNIT_TESTS for case in re.findall(FIRING, file.read_text())]
    fires = {name for name, empty in cases if not empty}
    silent = {name for name, empty in cases if empty}
    alerts = {rule["name"] for rule in watched[1].rules("alert")}
    assert fires == silent == alerts


def test_every_rule_is_healthy(watched, traffic, figure):
    """Evaluated by Prometheus itself, among the data of a real process; and so are the runbook's queries."""
    _, prometheus = watched
    traffic.round()
    rules = lambda: prometheus.rules("record") + prometheus.rules("alert")
    wait_for("every rule was evaluated", lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []
    for query in RUNBOOK_QUERIES:
        prometheus.values(query)
    figure(f"rules: {len(prometheus.rules('record'))} recorded, {len(prometheus.rules('alert'))} alerts")


def test_every_recorded_series_has_samples(watched, traffic):
    _, prometheus = watched
    missing = lambda: [rule["name"] for rule in prometheus.rules("record") if not prometheus.values(rule["name"])]

    def none_is_missing():
        traffic.round()
        return not missing()

    wait_for("a sample of every recorded series", none_is_missing)


def test_names_are_those_that_are_exported(watched, traffic):
    """Nothing in a panel, rule or unit test that hookwarden does not export; nothing exported that no panel shows."""
    stack, prometheus = watched
    traffic.round()
    wait_for("an outcome is counted", lambda: "hookwarden_upstream_deliveries_total" in exported(stack))
    recorded = {rule["name"]: rule["query"] for rule in prometheus.rules("record")}
    asked = {"dashboard.json": [query for _, query in queries()]}
    asked["dashboard.json"] += [annotation.get("target", {}).get("expr", "") for annotation in DASHBOARD["annotations"]["list"]]
    asked["dashboard.json"] += [variable["definition"] for variable in variables().values() if variable["type"] == "query"]
    asked["recording.yaml"] = list(recorded.values())
    asked["alerts.yaml"] = [rule["query"] for rule in prometheus.rules("alert")]
    asked["docs/runbook.md"] = RUNBOOK_QUERIES
    for file in UNIT_TESTS:
        asked[file.name] = [re.sub(r"\{[^}]*\}", "", series) for series in re.findall(r"series: '([^']+)'", file.read_text())]
    used = set()
    for where, texts in asked.items():
        raw, rules = (set().union(*names) for names in zip(*map(metric_names, texts)))
        assert raw <= exported(stack), where
        assert rules <= recorded.keys(), where
        used |= rules
    assert used == recorded.keys(), "a recorded series that nobody asks for"

    shown, rules = (set().union(*names) for names in zip(*(metric_names(text) for text in asked["dashboard.json"])))
    assert rules, "the dashboard goes by recorded series"
    shown = shown.union(*(metric_names(recorded[name])[0] for name in rules))
    families = set(re.findall(r"^# TYPE (\S+)", stack.metrics(), re.M))
    family = lambda name: next((f for f in families if re.fullmatch(rf"{f}(_bucket|_sum|_count)?", name)), name)
    assert families - {family(name) for name in shown} == NOT_ON_THE_DASHBOARD.keys()


def test_every_text_of_an_alert_can_be_rendered(watched):
    """Each alert with its own labels and texts, and an expression that is always true."""
    _, prometheus = watched
    alerts = prometheus.rules("alert")
    label = {"job": "hooks", "instance": "a", "endpoint": "github", "reason": "internal", "secret_id": "main"}
    texts = []
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["name"]
        assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("critical", "warning", "info"), rule["name"]
        names = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
        assert names <= firing_labels(rule["name"]), f"{rule['name']} tells of a label that it has not"
        query = "vector(0.5)"
        for name in names:
            query = f'label_replace({query}, "{name}", "{label[name]}", "", "")'
        texts.append({"alert": f"Text{rule['name']}", "expr": query, "annotations": rule["annotations"]})
    (prometheus.directory / "texts.json").write_text(json.dumps({"groups": [{"name": "texts", "rules": texts}]}))
    prometheus.program.signal(signal.SIGHUP)

    rendered = lambda: {a["labels"]["alertname"]: a["annotations"] for a in prometheus.ask("alerts")["alerts"] if a["labels"]["alertname"].startswith("Text")}
    wait_for("every text is rendered", lambda: len(rendered()) == len(texts))
    for name, annotations in rendered().items():
        for text in annotations.values():
            assert not re.search(r"error|<no value>|\{\{|%!", text.replace("level `error`", "")), (name, text)
    (prometheus.directory / "texts.json").write_text(json.dumps({"groups": []}))
    prometheus.program.signal(signal.SIGHUP)
    wait_for("they are gone", lambda: not rendered())


def firing_labels(alert):
    """The labels that the unit tests see on a firing alert."""
    found = re.findall(rf"labels: 'ALERTS\{{alertname=\"{alert}\",([^}}]*)\}}'", "".join(file.read_text() for file in UNIT_TESTS))
    return {name for labels in found for name in re.findall(r"(\w+)=", labels)}


def test_a_refused_configuration_raises_its_alert(watched):
    stack, prometheus = watched
    good = stack.config.read_text()
    assert prometheus.alert("HookwardenConfigReloadFailed") == "inactive"
    stack.config.write_text(good.replace("provider: github", "provider: githob"))
    stack.hookwarden.signal(signal.SIGHUP)
    wait_for("the alert is pending", lambda: prometheus.alert("HookwardenConfigReloadFailed") == "pending")
    stack.config.write_text(good)
    stack.hookwarden.signal(signal.SIGHUP)
    wait_for("it is over", lambda: prometheus.alert("HookwardenConfigReloadFailed") == "inactive")


def test_a_process_that_hangs_raises_its_alert(watched):
    stack, prometheus = watched
    stack.hookwarden.signal(signal.SIGSTOP)
    try:
        wait_for("the alert is pending", lambda: prometheus.alert("HookwardenTargetDown") == "pending")
    finally:
        stack.hookwarden.signal(signal.SIGCONT)
    wait_for("it is over", lambda: prometheus.alert("HookwardenTargetDown") == "inactive")


# ── the runbook, and the lists that are written twice ────────────────────────────────────────────────────────────────


def reasons():
    """{reason: kind}, from the code."""
    text = (ROOT / "src" / "decision.rs").read_text()
    found = {}
    for kind, rows in re.findall(r"^    (Rejection|Fault) \{\n(.*?)^    \}", text, re.S | re.M):
        found |= {spelling: kind for spelling in re.findall(r'^        \w+ "(\w+)" \d+ \d+ "', rows, re.M)}
    answers = re.search(r"impl AnswerReason \{.*?^\}", text, re.S | re.M)[0]
    found |= {spelling: "Answer" for spelling in re.findall(r'=> "(\w+)"', answers)}
    found[re.search(r'VERIFIED: &str = "(\w+)"', text)[1]] = "Allow"
    assert len(found) > 60 and set(found.values()) == {"Rejection", "Fault", "Answer", "Allow"}
    return found


def sections():
    """{heading: its lines that are not empty} of the runbook's third level."""
    parts = re.split(r"^(#{1,3} .*)$", RUNBOOK, flags=re.M)
    return {
        heading.removeprefix("### ").strip("`"): [line for line in body.splitlines() if line.strip()]
        for heading, body in zip(parts[1::2], parts[2::2])
        if heading.startswith("### ")
    }


def slug(heading):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_alert_and_every_reason_has_its_section(watched):
    alerts = {rule["name"]: rule["annotations"]["runbook"] for rule in watched[1].rules("alert")}
    kebab = lambda name: re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    assert alerts == {name: f"docs/runbook.md#{kebab(name)}" for name in alerts}
    found = sections()
    assert {slug(heading) for heading in found} == {kebab(name) for name in alerts} | reasons().keys()
    headings = {kebab(name): name for name in alerts}
    for heading, lines in found.items():
        name = headings.get(slug(heading))
        assert name is None or lines[0].startswith(f"`{name}`"), f"the section {heading} does not name its alert"
        assert name or 2 <= len(lines) <= 6, f"{heading}: {len(lines)} lines"


def test_links_of_the_runbook_lead_somewhere():
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", RUNBOOK, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        assert (ROOT / "docs" / path).exists() if path else anchor in anchors, target


def test_the_list_of_faults_is_the_code_s():
    """Rules tell a fault from a rejection by its reason, for no label does."""
    faults = {reason for reason, kind in reasons().items() if kind == "Fault"}
    texts = [query for _, query in queries()] + [(SHIPPED / name).read_text() for name in ("recording.yaml", "alerts.yaml")]
    lists = [set(found.split("|")) for text in texts for found in re.findall(r'reason[=!]~\s*"([^"]+)"', text)]
    for found in lists:
        assert found <= reasons().keys(), found
        assert "internal" not in found or found in (faults, faults - {"outcome_pending"})
    assert faults in lists
