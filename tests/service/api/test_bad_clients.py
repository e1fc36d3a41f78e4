"""Clients that send too much, too slowly, or never come to an end: over a real socket, the others are still served."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest
import uvicorn

from spectune.service.server import server_config
from tests.service.api.conftest import Bench, document

ROOM_BYTES = 64 * 2**20


@pytest.fixture
def port(bench: Bench) -> Iterator[int]:
    """Serve the bench's application as `spectune serve` does."""
    server = uvicorn.Server(server_config(bench.application.state.context, "127.0.0.1", 0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20.0)


def answer_to(port: int, content: bytes) -> bytes:
    """Send bytes and read what comes back, if anything does before the connection is closed."""
    with connect(port) as client, suppress(ConnectionError):
        client.sendall(content)
        return client.recv(1000)
    return b""


def used_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def test_floods_and_slow_clients_hold_no_memory_and_nobody_up(bench: Bench, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{url}/healthz").status_code == 200
    before = used_bytes()
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(3000))
    flood = b"GET /v1/campaigns HTTP/1.1\r\nHost: x\r\n" + headers
    slow = []
    for _ in range(50):
        assert answer_to(port, flood)[9:12] == b"431"
        client = connect(port)
        client.sendall(b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
        slow.append(client)
    began = time.monotonic()
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert time.monotonic() - began < 2.0, "others wait for those who are slow"
    assert used_bytes() - before < ROOM_BYTES
    for client in slow:
        client.close()
    assert bench.client.get("/v1/campaigns").json()["campaigns"] == []


def test_an_endless_body_is_refused_long_before_its_end(bench: Bench, port: int) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**16
            yield b" " * 2**16

    before = used_bytes()
    with suppress(httpx.TransportError):  # the connection may be closed while we still send
        assert httpx.post(f"http://127.0.0.1:{port}/v1/campaigns", content=chunks(), timeout=20.0).status_code == 413
    assert sent < 64 * 2**20
    assert used_bytes() - before < ROOM_BYTES


def test_ten_thousand_arms_are_one_refusal_with_its_place(bench: Bench) -> None:
    body = document(arms=[{"optimizer": "muon", "name": f"arm-{number}"} for number in range(10_000)])
    assert len(json.dumps(body)) < 2**20
    before = used_bytes()
    answer = bench.client.post("/v1/campaigns", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == "/arms"
    assert len(answer.content) < 100_000
    assert used_bytes() - before < ROOM_BYTES
    assert bench.client.get("/v1/campaigns").json()["campaigns"] == []
