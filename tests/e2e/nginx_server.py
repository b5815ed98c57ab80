"""A real nginx with the files of `deploy/nginx/`, in front of hookwarden and the sample application."""

import subprocess

from client import Edge, Http1
from redis_server import free_port
from stack import ROOT, Program, Stack, Unexpected, substitute, wait_for

NGINX = ROOT / "deploy" / "nginx"
SOMEBODY = "203.0.113.99"  # whose address a client's is that gives none


class Nginx:
    """One nginx with a configuration rendered for this machine."""

    def __init__(self, name, stack, source, changes):
        self._stack, self._source, self._changes = stack, source, changes
        self.directory = stack.directory / name
        self.directory.mkdir()
        (self.directory / "temporary").mkdir()
        self.program, self.edge = None, None

    def start(self):
        for _ in range(10):
            port = free_port()
            self._render(port)
            arguments = ["nginx", "-p", self.directory, "-c", "nginx.conf", "-g", "daemon off;"]
            self.program = Program(self.directory.name, arguments, self.directory)
            self.program.start()
            self.edge = Edge(port, self._stack.tls / "ca.crt")
            try:
                wait_for("nginx accepts", self._accepts, program=self.program)
                return
            except Unexpected:
                if self.program.running or "Address already in use" not in self.program.log_text():
                    raise
        raise Unexpected("no port for nginx")

    def _accepts(self):
        with Http1(self.edge, SOMEBODY):
            return True

    def _render(self, port):
        temporary = "".join(
            f"  {kind}_temp_path {self.directory}/temporary/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = substitute(
            self._source.read_text(),
            ("pid /run/nginx.pid;", f"pid {self.directory}/nginx.pid;\nuser root;"),
            ("http {\n", f"http {{\n{temporary}"),
            ("server unix:/run/hookwarden/verify.sock;", f"server unix:{self._stack.verify_socket};"),
            ("server 127.0.0.1:8080; ", f"server 127.0.0.1:{self._stack.app_port}; "),
            # As behind a load balancer that says whose connection it is.
            (
                "listen 8443 ssl http2;",
                f"listen 127.0.0.1:{port} ssl http2 proxy_protocol;\n    set_real_ip_from 127.0.0.1;\n    real_ip_header proxy_protocol;",
            ),
            ("/etc/nginx/tls/tls.crt;", f"{self._stack.tls}/tls.crt;"),
            ("/etc/nginx/tls/tls.key;", f"{self._stack.tls}/tls.key;"),
            *self._changes,
        )
        (self.directory / "nginx.conf").write_text(text)
        (self.directory / "hookwarden_headers.conf").write_text((NGINX / "hookwarden_headers.conf").read_text())


NJS = (
    ("modules/ngx_http_js_module.so", "/usr/lib/nginx/modules/ngx_http_js_module.so"),
    ("js_path   /etc/nginx/njs;", f"js_path   {NGINX}/njs;"),
)


class NginxStack(Stack):
    """hookwarden and the sample application with nginx in front, all from `deploy/nginx/`."""

    def __init__(self, directory, njs=False, endpoints="", only=False, log_level="debug", environment=None, **options):
        self._njs, self._endpoints, self._only = njs, endpoints, only
        self.verify_socket = directory / "verify.sock"
        super().__init__(directory, log_level=log_level, **options)
        self.hookwarden.environment = environment
        source = NGINX / ("njs/nginx.conf" if njs else "nginx.conf")
        self.nginx = Nginx("nginx", self, source, NJS if njs else ())

    def rendered_config(self):
        dialect = 'dialect: nginx-accel\n  forward_to: "@app"\n'
        text = substitute(
            (NGINX / "hookwarden.yaml").read_text(),
            ("listen:\n", f"listen:\n  ext_authz: unix://{self.socket}\n"),
            ("unix:///run/hookwarden/verify.sock", f"unix://{self.verify_socket}"),
            ("admin: 127.0.0.1:9193", "admin: 127.0.0.1:0"),
            ("file:///var/lib/hookwarden/state.redb", f"file://{self.directory}/state.redb"),
            *([(dialect, "dialect: verdict\n")] if self._njs else []),
        )
        if self._only:
            text = text.partition("\nendpoints:\n")[0] + "\nendpoints:\n"
        return text.replace("/run/secrets/", f"{self.secrets}/") + self._endpoints

    def start(self):
        self.start_app()
        self.start_hookwarden()
        self.nginx.start()

    @property
    def edge(self):
        return self.nginx.edge

    def programs(self):
        return [*([self.nginx.program] if self.nginx.program else []), self.hookwarden, self.app]

    def send(self, request, client_ip=SOMEBODY, **options):
        return super().send(request, client_ip or SOMEBODY, **options)


def version():
    """What nginx says that it is."""
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
