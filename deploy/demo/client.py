"""A small HTTPS client that sends exactly what it is told.

General clients add headers, merge duplicates and tidy paths. What is shown and tested here depends on bytes, so
requests go out as written. Standard library only.
"""

import base64
import dataclasses
import http.client
import json
import pathlib
import select
import socket
import ssl
import urllib.parse

HOST = "hooks.example.com"


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, as `hookwarden sign --format json` prints it."""

    method: str
    url: str
    headers: tuple = ()
    body: bytes = b""

    @classmethod
    def from_json(cls, text):
        fields = json.loads(text)
        body = base64.b64decode(fields["body_base64"]) if "body_base64" in fields else fields.get("body", "").encode()
        return cls(fields["method"], fields["url"], tuple((k, v) for k, v in fields.get("headers", [])), body)

    @property
    def host(self):
        return urllib.parse.urlsplit(self.url).netloc

    @property
    def target(self):
        parts = urllib.parse.urlsplit(self.url)
        return (parts.path or "/") + ("?" + parts.query if parts.query else "")

    @property
    def path(self):
        return self.target.partition("?")[0]

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def change(self, **fields):
        return dataclasses.replace(self, **fields)

    def add(self, *headers):
        return self.change(headers=(*self.headers, *headers))

    def without(self, name):
        return self.change(headers=tuple(h for h in self.headers if h[0].lower() != name.lower()))

    def one_byte_changed(self):
        """The same delivery with the lowest bit of its last byte flipped."""
        return self.change(body=self.body[:-1] + bytes([self.body[-1] ^ 1]))


@dataclasses.dataclass(frozen=True)
class Response:
    """What the client saw."""

    status: int
    headers: tuple
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def request_id(self):
        return self.header("x-request-id")


@dataclasses.dataclass(frozen=True)
class Edge:
    """Where Envoy listens, and the CA that vouches for it."""

    port: int
    ca: pathlib.Path

    def connect(self, protocol, client_ip=None, timeout=60):
        """A TLS connection that speaks `protocol` (`h2` or `http/1.1`).

        With `client_ip`, a PROXY line goes first, as a load balancer would send it: this machine has only
        private addresses, and some decisions depend on whose address it is.
        """
        raw = socket.create_connection(("127.0.0.1", self.port), timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client_ip:
            family, here = ("TCP6", "2001:db8::1") if ":" in client_ip else ("TCP4", "192.0.2.1")
            raw.sendall(f"PROXY {family} {client_ip} {here} 50000 443\r\n".encode())
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols([protocol])
        try:
            connection = context.wrap_socket(raw, server_hostname=HOST)
        except BaseException:
            raw.close()
            raise
        if connection.selected_alpn_protocol() != protocol:
            raise ConnectionError(f"Envoy did not agree to {protocol}")
        return connection


class Http1:
    """One HTTP/1.1 connection."""

    def __init__(self, edge, client_ip=None, timeout=60):
        self._connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout)
        self._connection.sock = edge.connect("http/1.1", client_ip, timeout)
        self._connection.auto_open = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def send(self, request, chunk=None, pause_after=None, raw_target=None):
        """Sends a request; its body in chunks of `chunk` bytes where that is given, else with its length. `raw_target`
        goes into the request's line as it is.

        With `pause_after`, only that much of the body goes out until an answer is there, or a second has passed.
        """
        connection = self._connection
        connection.putrequest(request.method, raw_target or request.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", request.host)
        for name, value in request.headers:
            if name.lower() not in ("host", "content-length"):
                connection.putheader(name, value.encode("utf-8"))
        try:
            if chunk:
                connection.putheader("transfer-encoding", "chunked")
                pieces = (request.body[at : at + chunk] for at in range(0, len(request.body), chunk))
                connection.endheaders(pieces, encode_chunked=True)
            else:
                if request.body or request.method not in ("GET", "HEAD"):
                    connection.putheader("content-length", str(len(request.body)))
                connection.endheaders(request.body[:pause_after] or None)
                if pause_after:
                    select.select([connection.sock], [], [], 1)
                    connection.send(request.body[pause_after:])
        except OSError:
            pass  # an answer may have come before the whole body was taken
        answer = connection.getresponse()
        return Response(answer.status, tuple(answer.getheaders()), answer.read())


def send(edge, request, client_ip=None, **options):
    """Sends one request over a connection of its own."""
    with Http1(edge, client_ip) as connection:
        return connection.send(request, **options)
