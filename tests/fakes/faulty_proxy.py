"""A way to a real server on which requests go wrong as a test says."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Fault(Enum):
    """What becomes of a request."""

    NONE = auto()
    REFUSED = auto()  # answered 500; the server never sees it
    LOST = auto()  # the server does it; the connection is cut instead of the answer
    CUT = auto()  # the server has it and may do it; the connection is cut at once


class FaultyProxy:
    """Hands requests to a server, with faults.

    Args:
        port: Of the server, on loopback.
        fault: Says what becomes of a request: its number from 1, and its path.
        before_cut: Called when the server has a request that is CUT.
        delay_seconds: Before a request is handed on; may be set anew.
    """

    def __init__(
        self,
        port: int,
        fault: Callable[[int, str], Fault] = lambda number, path: Fault.NONE,
        *,
        before_cut: Callable[[], None] = lambda: None,
        delay_seconds: float = 0.0,
    ) -> None:
        self._port, self._fault = port, fault
        self._before_cut, self.delay_seconds = before_cut, delay_seconds
        self._lock = threading.Lock()
        self.paths: list[str] = []
        self.faults: list[Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="faulty proxy", daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, str, bytes] | None:
        """Do what becomes of a request; None cuts the connection."""
        with self._lock:
            self.paths.append(path)
            fault = self._fault(len(self.paths), path)
            self.faults.append(fault)
        if fault is Fault.REFUSED:
            return 500, "text/plain", b"the test refuses"
        time.sleep(self.delay_seconds)
        upstream = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in ("connection", "host")}
            upstream.request(method, path, body=body, headers=kept)
            if fault is Fault.CUT:
                self._before_cut()
                return None
            answer = upstream.getresponse()
            content = answer.read()
        except OSError:
            return None  # the server is down: so is the way to it
        finally:
            upstream.close()
        return None if fault is Fault.LOST else (answer.status, answer.getheader("Content-Type", ""), content)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = proxy.pass_on(self.command, self.path, self.headers, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, kind, content = answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        return Handler
