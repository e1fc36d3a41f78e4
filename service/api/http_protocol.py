"""A connection that ends in time, whatever its client does: uvicorn's own, with a limit on every wait.

    request line and headers       `head_seconds`, from the connection's first moment or the request's first byte
    body                           `body_seconds`; `bodies.py` answers 408 before, for what a route reads
    between two requests           uvicorn's `timeout_keep_alive`
    an answer that nobody takes    `answer_seconds` for each `answer_bytes` of it, however large it is
    number of connections          `most`: a new one pushes out one whose request has not come or not come whole

So clients that send slowly, or never, hold neither memory nor a place that others need. What the HTTP library refuses
before there is a request (too many bytes of headers, no HTTP) is a problem like any other.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from spectune.service.api.problems import RETRY_SECONDS, problem_response

_CLOSING_SECONDS = 2.0
_KERNEL_BYTES = 128 * 1024  # else it keeps megabytes for each client that does not read, and hides which one does
_REFUSALS = {
    HTTPStatus.REQUEST_TIMEOUT: ("timeout", "the request did not arrive in time"),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers-too-large", "the headers have too many bytes"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("busy", "too many requests are being answered"),
}
_NO_HTTP = ("http", "what was sent is no request of HTTP/1.1")


@dataclass(frozen=True)
class ConnectionLimits:
    """How long a connection waits for its client, and how many there may be."""

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float = 60.0
    answer_bytes: int = 64 * 1024
    most: int = 1000


class BoundedConnection(H11Protocol):
    """One connection; a subclass may have other limits."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waits_for: object = None
        self._arrival: asyncio.TimerHandle | None = None
        self._departure: asyncio.TimerHandle | None = None
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; where there are too many, another one ends or this one is refused."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        if len(self.connections) > self.limits.most and not self._push_one_out():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._mind_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._wait_for(None)
        self._watch_departure(False)

    def data_received(self, data: bytes) -> None:
        """Take what has come; it puts no deadline off but that of what comes next."""
        if not self._is_over:
            super().data_received(data)
            self._mind_arrival()

    def on_response_complete(self) -> None:
        """Go on with the next request, which may have come already."""
        super().on_response_complete()
        self._mind_arrival()

    def pause_writing(self) -> None:
        """Wait for a client that does not read as fast as it is written to."""
        super().pause_writing()
        self._watch_departure(True)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._watch_departure(self.transport.is_closing())

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that nobody uses, once its client has taken what was written."""
        super().timeout_keep_alive_handler()
        self._watch_departure(True)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; the error that h11 has just raised knows the status."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(HTTPStatus(hint))

    @property
    def _is_spare(self) -> bool:
        """Return whether it could end now without an answer being lost that somebody waits for."""
        has_asked = self.cycle is not None and not self.cycle.response_complete and self._arrival is None
        is_answered = not has_asked and not self.transport.get_write_buffer_size()
        return not self.transport.is_closing() and (self._is_over or is_answered)

    def _mind_arrival(self) -> None:
        """Set the deadline of what is to arrive next, where it is not set yet."""
        awaited = self.conn.their_state
        is_kept_alive = awaited is h11.IDLE and self.timeout_keep_alive_task and not self.conn.trailing_data[0]
        is_ending = self._is_over or self.transport.is_closing()
        if is_kept_alive or is_ending or awaited not in (h11.IDLE, h11.SEND_BODY):
            self._wait_for(None)
        elif awaited is not self._waits_for:
            self._unset_keepalive_if_required()
            self._wait_for(awaited)

    def _wait_for(self, awaited: object) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        self._waits_for = awaited
        if awaited is not None:
            seconds = self.limits.head_seconds if awaited is h11.IDLE else self.limits.body_seconds
            self._arrival = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """End a connection whose client has let a deadline pass; one that has said nothing is told nothing."""
        if self.conn.trailing_data[0] or self._waits_for is h11.SEND_BODY:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _watch_departure(self, is_watched: bool) -> None:
        """Look after a while how much of what is written was taken."""
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None
        left = self.transport.get_write_buffer_size()
        if is_watched and left:
            self._departure = self.loop.call_later(self.limits.answer_seconds, self._expect_less, left)

    def _expect_less(self, before: int) -> None:
        """End a connection whose client has taken next to nothing."""
        if before - self.transport.get_write_buffer_size() < min(before, self.limits.answer_bytes):
            self.transport.abort()
        else:
            self._watch_departure(True)

    def _push_one_out(self) -> bool:
        """End the connection that would end first by itself; tell whether there is one beside this."""
        others = [each for each in self.connections if isinstance(each, BoundedConnection) and each is not self]
        spare = [each for each in others if each._is_spare]
        if spare:
            min(spare, key=lambda each: each._ends_at).transport.abort()
        return bool(spare)

    @property
    def _ends_at(self) -> float:
        """Return when it ends by itself; those that were refused and linger go first."""
        timers = [timer for timer in (self._arrival, self.timeout_keep_alive_task) if timer is not None]
        return min((timer.when() for timer in timers), default=0.0)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with a problem, where an answer may still begin, and end."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._wait_for(None)
        if self.transport.is_closing() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        kind, detail = _REFUSALS.get(status, _NO_HTTP)
        wait = {"Retry-After": str(RETRY_SECONDS)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
        answer = problem_response(status, kind, detail, headers={"Connection": "close", **wait})
        head = h11.Response(status_code=status, headers=answer.raw_headers, reason=status.phrase.encode())
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._linger()

    def _linger(self) -> None:
        """Read what still comes, and forget it, for a moment: who closes with bytes unread takes the answer back."""
        self._is_over = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_CLOSING_SECONDS, self.transport.abort)
