"""An application that verifies for itself: the secret is that of measure.py."""

import hashlib
import hmac

from flask import Flask, abort, request

app = Flask(__name__)


@app.post("/<path:_>")
def receive(_):
    wanted = "sha256=" + hmac.new(b"a secret of the benchmarks", request.get_data(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted, request.headers.get("X-Hub-Signature-256", "")):
        abort(401)
    return "received\n"
