#!/usr/bin/env python3
"""A sample application: it takes what it is sent and remembers it.

It knows nothing of webhooks, signatures or proxies. Whatever stands in front of it must have decided already; that
is the point of the exercise. Standard library only.

    app.py [--host 0.0.0.0] [--port 8080] [--keep 1000]      (or APP_HOST, APP_PORT, APP_KEEP)

Every request is answered `200 received` and recorded: method, path, headers, length and SHA-256 of the body.
`GET /_received` shows the latest records as JSON, `GET /_received/PATH` those of one path; these two are not recorded.
"""

import argparse
import collections
import hashlib
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INSPECT = "/_received"
PIECE = 65536


class Records:
    """The latest requests, numbered from 1 in the order they were complete."""

    def __init__(self, keep):
        self._latest = collections.deque(maxlen=keep)
        self._total = 0
        self._lock = threading.Lock()

    def add(self, record):
        with self._lock:
            self._total += 1
            self._latest.append({"number": self._total, **record})

    def as_json(self, path=None):
        with self._lock:
            total, latest = self._total, list(self._latest)
        chosen = [r for r in latest if path is None or r["path"].partition("?")[0] == path]
        return json.dumps({"total": total, "received": chosen}, indent=1).encode()


class BodyDigest:
    """Length and SHA-256 of a body that is never held as a whole."""

    def __init__(self):
        self.length = 0
        self._sha256 = hashlib.sha256()

    def take(self, stream, length):
        while length:
            piece = stream.read(min(length, PIECE))
            if not piece:
                raise ConnectionError("the body ended early")
            self._sha256.update(piece)
            self.length += len(piece)
            length -= len(piece)

    def hexdigest(self):
        return self._sha256.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sample-app"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave together
    timeout = 120  # an idle connection does not keep its thread for ever

    def handle_any(self):
        try:
            body = self.read_body()
        except (ConnectionError, ValueError) as problem:
            self.close_connection = True
            self.log_message("unreadable body: %s", problem)
            return
        path = self.path.partition("?")[0]
        if self.command == "GET" and path == INSPECT:
            self.answer(self.server.records.as_json(), "application/json")
        elif self.command == "GET" and path.startswith(INSPECT + "/"):
            self.answer(self.server.records.as_json(path.removeprefix(INSPECT)), "application/json")
        else:
            self.record(body)
            self.answer(b"received\n", "text/plain")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def read_body(self):
        body = BodyDigest()
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self.read_chunks(body)
        else:
            body.take(self.rfile, int(self.headers.get("content-length", "0")))
        return body

    def read_chunks(self, body):
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            body.take(self.rfile, length)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def record(self, body):
        self.server.records.add({
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "body_bytes": body.length,
            "body_sha256": body.hexdigest(),
        })

    def answer(self, body, content_type):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """Requests are recorded, not printed: they may hold what should not be in a log."""


class Application(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, address, keep):
        super().__init__(address, Handler)
        self.records = Records(keep)


def arguments():
    parser = argparse.ArgumentParser(description="A sample application that remembers what it is sent.")
    parser.add_argument("--host", default=os.environ.get("APP_HOST", "0.0.0.0"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("APP_PORT", "8080")), help="0 for any free one")
    parser.add_argument("--keep", type=int, default=int(os.environ.get("APP_KEEP", "1000")), help="how many records")
    return parser.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the default does nothing in a container's first process
    application = Application((options.host, options.port), options.keep)
    print("listening on {}:{}".format(*application.server_address[:2]), flush=True)
    try:
        application.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
