"""An application that does what the request asks of it: `x-script` is `ok`, a status, `hang` or `reset`.

What it took with `ok` it records like the sample application; the rest it forgets, as one that failed would.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "app"))

import app  # noqa: E402

HANG = 30  # seconds; longer than any client or route here waits


class Handler(app.Handler):
    def record(self, body):
        script = self.headers.get("x-script", "ok")
        if script == "hang":
            time.sleep(HANG)
        if script in ("hang", "reset"):
            raise ConnectionResetError("as asked")
        self.status = 200 if script == "ok" else int(script)
        if script == "ok":
            super().record(body)

    def handle_any(self):
        try:
            super().handle_any()
        except ConnectionResetError:
            self.close_connection = True

    do_GET = do_POST = handle_any

    def send_response(self, code, message=None):
        super().send_response(getattr(self, "status", code), message)


app.Handler = Handler
app.main()
