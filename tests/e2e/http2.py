"""An HTTP/2 client that chooses its own frames.

Where Envoy's limit bites depends on which DATA frame ends the stream, so a test must be able to say how a body is
cut. General clients do not let it.
"""

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from client import Response

FRAME = 16384


class StreamReset(Exception):
    """The server reset the stream instead of answering."""


class Http2:
    """One HTTP/2 connection, one request at a time."""

    def __init__(self, edge, client_ip=None, timeout=60):
        self._socket = edge.connect("h2", client_ip, timeout)
        # Header names go out as given, and what the server sends is not judged: that is not what is tested here.
        configuration = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(configuration)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, request, cuts=None, announced=True):
        """Sends a request and returns the answer.

        `cuts` are the lengths of the DATA frames; the last one carries END_STREAM. Without it, frames are as long as
        HTTP/2 allows by default. What is not `announced` has no content-length, which HTTP/2 does not need.
        """
        exchange = Exchange(self._h2.get_next_available_stream_id())
        bodiless = not request.body
        self._h2.send_headers(exchange.stream, pseudo_and_plain(request, announced), end_stream=bodiless)
        if not bodiless:
            self._send_body(exchange, request.body, cuts)
        while not exchange.over:
            self._receive(exchange)
        return exchange.response()

    def _send_body(self, exchange, body, cuts):
        frames = list(split(body, cuts))
        for frame in frames:
            if not self._wait_for_window(exchange, len(frame)):
                return  # answered or reset before the body was taken
            self._h2.send_data(exchange.stream, frame, end_stream=frame is frames[-1])
            self._flush()

    def _wait_for_window(self, exchange, length):
        while not exchange.over and self._h2.local_flow_control_window(exchange.stream) < length:
            self._flush()
            self._receive(exchange)
        return not exchange.over

    def _receive(self, exchange):
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("Envoy closed the connection")
        for event in self._h2.receive_data(data):
            exchange.take(event)
            if isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self._flush()

    def _flush(self):
        self._socket.sendall(self._h2.data_to_send())


class Exchange:
    """What has come back on one stream."""

    def __init__(self, stream):
        self.stream = stream
        self.over = False
        self._reset = None
        self._headers = []
        self._body = b""

    def take(self, event):
        if isinstance(event, h2.events.ConnectionTerminated):
            raise ConnectionError(f"GOAWAY {event.error_code}")
        if getattr(event, "stream_id", None) != self.stream:
            return
        if isinstance(event, h2.events.ResponseReceived):
            self._headers = [(name, value) for name, value in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            self._body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self.over = True
        elif isinstance(event, h2.events.StreamReset):
            # After a whole answer this only says: stop sending.
            self._reset = None if self.over else event.error_code
            self.over = True

    def response(self):
        if self._reset is not None:
            raise StreamReset(self._reset)
        headers = dict(self._headers)
        plain = tuple((name, value) for name, value in self._headers if not name.startswith(":"))
        return Response(int(headers[":status"]), plain, self._body)


def pseudo_and_plain(request, announced):
    bodiless = not request.body and request.method in ("GET", "HEAD")
    length = [] if bodiless or not announced else [("content-length", str(len(request.body)))]
    return [
        (":method", request.method),
        (":scheme", "https"),
        (":authority", request.host),
        (":path", request.target),
        *((name.lower(), value) for name, value in request.headers if name.lower() not in ("host", "content-length")),
        *length,
    ]


def split(body, cuts):
    at = 0
    for length in cuts if cuts is not None else [FRAME] * -(-len(body) // FRAME):
        yield body[at : at + length]
        at += length
    if at < len(body):
        raise ValueError("the cuts do not cover the body")


def send(edge, request, client_ip=None, **options):
    """Sends one request over a connection of its own."""
    with Http2(edge, client_ip) as connection:
        return connection.send(request, **options)
