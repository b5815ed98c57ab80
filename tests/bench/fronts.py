"""The proxies and the rivals, each as its own documentation or ours configures it, and where they come from.

Envoy and nginx run with the files of `deploy/`, changed as little as will do: no TLS, no access log, one worker. So what is
measured is what is shipped, and every row has the same proxy around what differs.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request

import measure
from measure import HERE, ROOT, Unavailable, fresh, running, wait_for, wait_until_it_listens

RIVALS = HERE / "rivals"
MODULES = pathlib.Path("/usr/lib/nginx/modules")
VENVS = HERE / "target" / "venv", ROOT / ".venv"

# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────

PACKAGES = {"nginx": "nginx", "njs": "libnginx-mod-http-js", "Lua": "libnginx-mod-http-lua", "webhook": "webhook"}
FILES = {"njs": "ngx_http_js_module.so", "Lua": "ngx_http_lua_module.so"}


def found(name):
    """Where a program or a module of nginx is; nothing where it is not there."""
    if name in FILES:
        places = [MODULES / FILES[name]]
    elif name == "envoy" and "ENVOY" in os.environ:
        places = [pathlib.Path(shutil.which(os.environ["ENVOY"]) or "/nowhere")]
    else:
        places = [*(venv / "bin" / name for venv in VENVS), pathlib.Path(shutil.which(name) or "/nowhere")]
    return next((place for place in places if place.exists()), None)


def install():
    """Debian's packages where we are root, and the rest into a virtual environment that nothing else uses."""
    packages = [package for name, package in PACKAGES.items() if not found(name)]
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing from Debian:", *packages, file=sys.stderr)
        # At run level 1, so that the services which come with them are not started.
        quietly = {"env": {**os.environ, "RUNLEVEL": "1"}, "stdout": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quietly)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], **quietly)
    if not (found("envoy") and found("gunicorn")):
        script = ROOT / "deploy" / "demo" / "make_venv.py"
        subprocess.run([sys.executable, "-B", script, VENVS[0], HERE / "requirements.txt"], stdout=sys.stderr, check=False)


# ── Envoy ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(text, begin, end, instead=""):
    """Replaces what is from `begin` to before `end`, both of which must be there once before and once after it."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or text.count(begin) != 1:
        raise SystemExit(f"not found where it is cut: {begin!r} … {end!r}")
    return before + instead + end + after


def put(text, *changes):
    """Replaces exact text that must occur exactly once, so that a file that drifts breaks loudly."""
    for old, new in changes:
        if text.count(old) != 1:
            raise SystemExit(f"expected once, found {text.count(old)} times: {old!r}")
        text = text.replace(old, new)
    return text


CHECK = "          # 2. The check, for every route"
ROUTER = "          - name: envoy.filters.http.router"
ACCESS_LOG, OUTCOMES, FILTERS = "          access_log:\n", "          # What became of each delivery", "          http_filters:\n"


def envoy_configuration(port, sidecar, outcomes):
    text = (ROOT / "deploy" / "envoy.yaml").read_text()
    text = cut(text, "    listener_filters:\n", "    filter_chains:\n")
    text = cut(text, "    - transport_socket:\n", "      filters:\n", "    -\n")
    # The no-op says nothing of its health.
    text = cut(text, "    # For the metrics and the log.", "    common_lb_config:")
    if outcomes:
        text = cut(text, ACCESS_LOG, OUTCOMES, ACCESS_LOG)
    else:
        text = cut(text, ACCESS_LOG, FILTERS)
    if not sidecar:
        text = cut(text, CHECK, ROUTER)
    return put(
        text,
        ("{ address: 127.0.0.1, port_value: 9901 }", "{ address: 127.0.0.1, port_value: 0 }"),
        ("{ address: 0.0.0.0, port_value: 8443 }", "{ address: 127.0.0.1, port_value: 0 }"),
        ("path: /run/hookwarden/ext_authz.sock }", f"path: {sidecar or '/nowhere'} }}"),
        ("{ address: app, port_value: 8080 }", f"{{ address: 127.0.0.1, port_value: {port} }}"),
    )


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def envoy(directory, port, sidecar=None, outcomes=False):
    """One worker, in front of an application at `port` and, where there is one, a sidecar at a Unix socket: its process and
    where it listens."""
    file = fresh(directory, ".yaml")
    admin = file.with_suffix(".admin")
    file.write_text(envoy_configuration(port, sidecar, outcomes))
    options = ["--concurrency", 1, "--disable-hot-restart", "--log-level", "error", "--admin-address-path", admin]
    with running([found("envoy"), "--config-path", file, *options], file.with_suffix(".log")) as process:
        base = "http://" + wait_for("Envoy's admin address", lambda: admin.exists() and admin.read_text(), process)
        wait_for("Envoy is ready", lambda: get(f"{base}/ready").strip() == "LIVE", process)
        listener = json.loads(get(f"{base}/listeners?format=json"))["listener_statuses"][0]
        yield process, f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"


# ── nginx ────────────────────────────────────────────────────────────────────────────────────────────────────────────

APPLICATION = "location @app {\n"
# How each way to verify differs from `deploy/nginx/nginx.conf`: a module, what the http block has for it, and its locations.
WAYS = {
    "plain": ("", "", "location / {\n"),
    "njs": (
        "load_module {modules}/ngx_http_js_module.so;",
        "js_path {rivals}; js_import hook from hook.js;",
        "location / { js_content hook.verify; }\n    location @app {\n",
    ),
    "Lua": (
        "load_module {modules}/ndk_http_module.so; load_module {modules}/ngx_http_lua_module.so;",
        'lua_package_path "{rivals}/?.lua;/usr/share/lua/5.1/?.lua;;"; init_by_lua_block {{ require "hook" }}',
        'location / {\n      access_by_lua_block { require("hook").verify() }\n',
    ),
}


def nginx_configuration(place, listen, port, way, sidecar):
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    text = cut(text, "    ssl_certificate     ", "    client_max_body_size")
    text = cut(text, "  # Not the query", "  server_tokens off;")
    module, block = "", ""
    if way == "hookwarden":
        text = put(text, ("server unix:/run/hookwarden/verify.sock;", f"server unix:{sidecar};"))
    else:
        module, block, location = WAYS[way]
        module, block = (part.format(modules=MODULES, rivals=RIVALS) for part in (module, block))
        # What is there for hookwarden alone.
        text = cut(text, "    set $hookwarden_endpoint", "    # Named locations")
        text = put(text, ("      include hookwarden_headers.conf;\n", ""), (APPLICATION, location))
        text = cut(text, "  upstream hookwarden {", "  upstream app")
    temporary = " ".join(f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # The directory is ours alone, so the worker is who we are.
    user = "user root;" if os.geteuid() == 0 else ""
    return put(
        text,
        ("worker_processes auto;", f"{module} {user} worker_processes 1;"),
        ("pid /run/nginx.pid;", f"pid {place}/nginx.pid;"),
        ("  server_tokens off;", f"  access_log off; keepalive_requests 1000000000; {temporary} {block}"),
        ("listen 8443 ssl http2;", f"listen 127.0.0.1:{listen};"),
        ("server 127.0.0.1:8080; ", f"server 127.0.0.1:{port}; "),
    )


@contextlib.contextmanager
def nginx(directory, port, way, sidecar=None):
    """One worker, in front of an application at `port`: its process and where it listens."""
    place = fresh(directory, ".nginx")
    place.mkdir()
    shutil.copy(ROOT / "deploy" / "nginx" / "hookwarden_headers.conf", place)

    def command(listen):
        (place / "nginx.conf").write_text(nginx_configuration(place, listen, port, way, sidecar))
        return [found("nginx"), "-p", place, "-c", "nginx.conf", "-g", "daemon off;"]

    with at_a_free_port(directory, command) as started:
        yield started


# ── what is behind them, and what needs none ─────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def at_a_free_port(directory, command):
    """A program that must be told its port: its process and where it listens. Between our look and its own another may have
    taken it."""
    for last in (False, False, True):
        port = measure.free_port()
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(running(command(port), fresh(directory, ".log")))
            try:
                wait_until_it_listens(f"127.0.0.1:{port}", process)
            except Unavailable:
                if last or process.poll() is None:
                    raise
                continue
            yield process, f"127.0.0.1:{port}"
            return


@contextlib.contextmanager
def upstream(directory):
    """The application that costs next to nothing: its process and its port."""
    with running([measure.BUILT / "upstream"], fresh(directory, ".log"), stdout=subprocess.PIPE, text=True) as process:
        yield process, int(process.stdout.readline())


def gunicorn(directory):
    """The application that verifies for itself, with the workers that cost least of those that keep connections."""
    options = ["--workers", 2, "--worker-class", "gthread", "--threads", 4, "--keep-alive", 75, "--preload", "--chdir", RIVALS]
    command = lambda port: [found("gunicorn"), *options, "--bind", f"127.0.0.1:{port}", "application:app"]
    return at_a_free_port(directory, command)


def webhook(directory):
    """adnanh/webhook, which runs a program for each delivery. It answers when that has ended: else deliveries are taken in
    faster than they are dealt with, and what those that wait will cost is not seen."""
    options = ["-hooks", RIVALS / "hooks.json", "-ip", "127.0.0.1", "-port"]
    return at_a_free_port(directory, lambda port: [found("webhook"), *options, port])
