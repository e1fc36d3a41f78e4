"""Clients that are too slow for a connection's limits: each is closed in time, and the others never notice."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn

from spectune.service.api.http_protocol import BoundedConnection, ConnectionLimits
from spectune.service.server import server_config
from tests.service.api.conftest import Bench

MOST = 20
PATIENCE_SECONDS = 0.4
ANSWER_SECONDS = 0.6
LARGE_BYTES = 4 * 2**20
LATE_SECONDS = 20.0  # of a busy machine


ASKS = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Hasty(BoundedConnection):
    """A connection with limits that a test can wait for."""

    limits = ConnectionLimits(
        head_seconds=PATIENCE_SECONDS,
        body_seconds=PATIENCE_SECONDS,
        answer_seconds=ANSWER_SECONDS,
        answer_bytes=4096,
        most=MOST,
    )


@pytest.fixture
def server(bench: Bench) -> Iterator[uvicorn.Server]:
    with serve(server_config(bench.application.state.context, "127.0.0.1", 0, connection=Hasty)) as server:
        yield server


@contextmanager
def serve(config: uvicorn.Config) -> Iterator[uvicorn.Server]:
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join()


def connect(server: uvicorn.Server) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20.0)
    client.connect(("127.0.0.1", int(server.servers[0].sockets[0].getsockname()[1])))
    return client


def url(server: uvicorn.Server) -> str:
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def rest(client: socket.socket) -> bytes:
    """Read until the connection is closed."""
    content = b""
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            content += piece
    return content


def status_and_problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer
    return int(head.split()[1]), json.loads(body)["type"]


TIMEOUT = (408, "urn:spectune:problem:timeout")


@pytest.mark.parametrize(
    ("begins", "goes_on", "expected"),
    [
        (b"", b"", None),
        (b"GET /healthz HT", b"", TIMEOUT),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", b"a", TIMEOUT),
        (b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", b" ", TIMEOUT),
        (b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", TIMEOUT),
    ],
    ids=["silent", "stops", "drips headers", "drips a body", "drips chunks"],
)
def test_what_does_not_arrive_in_time_ends_however_steadily_it_drips(
    server: uvicorn.Server, caplog: pytest.LogCaptureFixture, begins: bytes, goes_on: bytes, expected: object
) -> None:
    began = time.monotonic()
    with connect(server) as client:
        client.sendall(begins)
        ended = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while goes_on and not ended.wait(PATIENCE_SECONDS / 10):
                    client.sendall(goes_on)

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = rest(client)
        ended.set()
        dripping.join()
    assert PATIENCE_SECONDS * 0.9 < time.monotonic() - began < LATE_SECONDS
    assert (status_and_problem(answer) if answer else None) == expected
    assert [each.message for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_a_second_request_has_a_deadline_too_and_a_kept_connection_has_its_own(server: uvicorn.Server) -> None:
    with connect(server) as client:
        client.sendall(ASKS)
        assert client.recv(10_000).startswith(b"HTTP/1.1 200")
        time.sleep(2 * PATIENCE_SECONDS)  # between requests the limit is that of keep-alive
        client.sendall(ASKS + b"GET /heal")
        answers = rest(client)
        assert b"HTTP/1.1 200" in answers
        assert b"HTTP/1.1 408" in answers


def test_a_body_that_nobody_asked_for_holds_no_connection(server: uvicorn.Server) -> None:
    with connect(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert rest(client).startswith(b"HTTP/1.1 200")


def test_an_answer_that_nobody_takes_is_given_up(server: uvicorn.Server) -> None:
    with connect(server) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
        deadline = time.monotonic() + LATE_SECONDS
        time.sleep(PATIENCE_SECONDS / 2)
        assert server.server_state.connections
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.server_state.connections


async def large_answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more at once than a slow client takes before anybody looks after it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": bytes(LARGE_BYTES)})


def test_an_answer_that_is_taken_slowly_arrives_whole() -> None:
    config = uvicorn.Config(large_answer, port=0, http=Hasty, lifespan="off", log_config=None)
    num_bytes, began = 0, time.monotonic()
    with serve(config) as server, connect(server) as client:
        client.sendall(ASKS)
        while piece := client.recv(64 * 1024):
            num_bytes += len(piece)
            time.sleep(len(piece) * 2.5 * ANSWER_SECONDS / LARGE_BYTES)
    assert num_bytes > LARGE_BYTES
    assert time.monotonic() - began > 2 * ANSWER_SECONDS, "it was not slow"


@pytest.mark.parametrize(
    "begins",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nX-A: ",
        b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        ASKS,
    ],
    ids=["silent", "in headers", "in a body", "kept alive"],
)
def test_those_who_do_not_ask_make_room_for_those_who_do(server: uvicorn.Server, begins: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(5 * MOST):
            slow = stack.enter_context(connect(server))
            slow.sendall(begins)
            if begins == ASKS:
                assert slow.recv(10_000).startswith(b"HTTP/1.1 200")
        assert httpx.get(url(server) + "/healthz").status_code == 200
        assert len(server.server_state.connections) <= MOST + 1


def test_headers_that_are_too_large_and_what_is_no_http_are_problems_too(server: uvicorn.Server) -> None:
    flood = b"GET /v1/campaigns HTTP/1.1\r\nHost: x\r\n" + b"X-A: %s\r\n" % (b"a" * 1000) * 3000
    for content, expected in (
        (flood, (431, "urn:spectune:problem:headers-too-large")),
        (b"what is this\r\n\r\n", (400, "urn:spectune:problem:http")),
        (b"GET / HTTP/1.1\r\n\r\n", (400, "urn:spectune:problem:http")),
    ):
        with connect(server) as client:
            client.sendall(content)
            assert status_and_problem(rest(client)) == expected


def test_a_client_that_goes_away_is_no_error(
    server: uvicorn.Server, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (b"{", b"zz\r\n"):
        with connect(server) as client:
            length = b"Content-Length: 9" if body == b"{" else b"Transfer-Encoding: chunked"
            client.sendall(b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s" % (length, body))
            time.sleep(0.1)
    while server.server_state.connections:
        time.sleep(0.02)
    assert httpx.get(url(server) + "/healthz").status_code == 200
    assert [each.message for each in caplog.records if each.levelno >= logging.ERROR] == []
