"""Why the launcher on the machine of --master does not start, for those that wait for it there."""

from __future__ import annotations

import http.server
import json
import time

_MOST_BYTES = 2**20  # of an entry; those of Paddle's launchers have some hundred


def serve_failure(host: str, port: int, entries: dict[str, str], machines: int, seconds: float) -> int:
    """Answer every request at ``host:port`` with ``entries`` until so many machines have read them, for at most
    ``seconds``; returns how many have. Raises OSError where the port cannot be used, for example by a running job."""
    readers: set[str] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 5.0  # a connection that sends nothing

        def do_GET(self) -> None:
            self._answer(json.dumps(entries).encode())
            if any(self.path.startswith(key.rsplit("/", 1)[0]) for key in entries):
                readers.add(self.client_address[0])

        def do_PUT(self) -> None:
            length = self.headers.get("Content-Length", "")
            self.rfile.read(min(int(length), _MOST_BYTES) if length.isdecimal() else 0)
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A request that breaks off is no news."""

    deadline = time.monotonic() + seconds
    with Server((host, port), Handler) as server:
        while len(readers) < machines and time.monotonic() < deadline:
            server.timeout = max(0.1, deadline - time.monotonic())
            server.handle_request()
    return len(readers)
