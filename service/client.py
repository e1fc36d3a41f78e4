"""A client of the service: the verbs of its API as methods.

It repeats what can be repeated without harm (reads, and submissions under one idempotency key) while a service that it
has reached before restarts, and follows events across broken connections without a gap. A service that it has never
reached is most likely not running: the first call says so within three seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from spectune.service.errors import RequestError

TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
FIRST_PATIENCE_SECONDS = 2.0  # with the start of the command this is less than three
_PAUSE_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.25
_AWAY = (502, 503, 504)
_EXAMPLE = "http://127.0.0.1:8000"
Document = dict[str, Any]


class Client:
    """Speaks to one service.

    Args:
        url: Where it is.
        api_key: With what key; None where it has none.
        patience_seconds: How long to wait for a service that was reached once and is away.
        first_patience_seconds: How long to wait for one that was never reached; half of it if nothing listens there.

    Raises:
        RequestError: No service can be reached at the address; so does every method.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        first_patience_seconds: float = FIRST_PATIENCE_SECONDS,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise RequestError(f"no address of a service, such as {_EXAMPLE}: got {url!r}") from error
        self._url = url
        self._patience_seconds = patience_seconds
        self._first_patience_seconds = first_patience_seconds
        self._is_reached = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._http.close()

    def submit(self, specification: Mapping[str, Any], *, priority: int = 0, key: str | None = None) -> Document:
        """Submit a campaign, once however often it is sent; `key` names the request, by default by chance."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        body = dict(specification) | ({"priority": priority} if priority else {})
        return self._call("POST", "/v1/campaigns", json=body, headers=headers)

    def preview(self, specification: Mapping[str, Any]) -> Document:
        """Ask what a campaign would do."""
        return self._call("POST", "/v1/campaigns:preview", json=dict(specification))

    def campaigns(self, **query: Any) -> Iterator[Document]:
        """List campaigns, however many; the query as the API has it."""
        yield from self._pages("/v1/campaigns", "campaigns", query)

    def campaign(self, campaign_id: str) -> Document:
        """Read a campaign."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}")

    def leaderboard(self, campaign_id: str) -> Document:
        """Read the standings of a campaign's arms."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/leaderboard")

    def best(self, campaign_id: str) -> Document:
        """Read a campaign's best point."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/best")

    def report(self, campaign_id: str) -> Document:
        """Read what a campaign has found about its optimizers."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/report")

    def tracking(self, campaign_id: str) -> Document:
        """Read where a campaign can be looked at in MLflow."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/tracking")

    def act(self, campaign_id: str, verb: str) -> Document:
        """Cancel, pause, resume or retry-failed."""
        return self._call("POST", f"/v1/campaigns/{campaign_id}:{verb}")

    def extend(self, campaign_id: str, *, points: int) -> Document:
        """Let each arm of an ended campaign have so many points in all."""
        return self._call("POST", f"/v1/campaigns/{campaign_id}:extend", json={"points": points})

    def change(self, campaign_id: str, *, version: str = "*", **changes: Any) -> Document:
        """Change priority, workers or budget; `version` is the entity tag of what was read, "*" takes any."""
        return self._call("PATCH", f"/v1/campaigns/{campaign_id}", json=changes, headers={"If-Match": version})

    def delete(self, campaign_id: str) -> None:
        """Forget a campaign that has ended."""
        self._call("DELETE", f"/v1/campaigns/{campaign_id}")

    def trials(self, campaign_id: str, **query: Any) -> Iterator[Document]:
        """List a campaign's trials, however many; the query as the API has it."""
        yield from self._pages(f"/v1/campaigns/{campaign_id}/trials", "trials", query)

    def trial(self, campaign_id: str, number: int) -> Document:
        """Read one trial."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/trials/{number}")

    def curves(self, campaign_id: str, number: int, **query: Any) -> Document:
        """Read what a trial reported; `names` and `downsample` as the API has them."""
        return self._call("GET", f"/v1/campaigns/{campaign_id}/trials/{number}/metrics", params=query)

    def stop_trial(self, campaign_id: str, number: int) -> Document:
        """End one trial."""
        return self._call("POST", f"/v1/campaigns/{campaign_id}/trials/{number}:stop")

    def attempts(self, campaign_id: str) -> list[Document]:
        """List the launches of a campaign's driver."""
        found: list[Document] = self._call("GET", f"/v1/campaigns/{campaign_id}/attempts")["attempts"]
        return found

    def set_aside(self, campaign_id: str) -> list[Document]:
        """List the records of a campaign's drivers that the ledger cannot hold, and why."""
        found: list[Document] = self._call("GET", f"/v1/campaigns/{campaign_id}/set-aside")["records"]
        return found

    def logs(self, campaign_id: str, *, trial: int | None = None) -> str:
        """Read the end of what the last driver printed and what workers printed, or only what a trial's code did."""
        which = "" if trial is None else f"?trial={trial}"
        return self._ask("GET", f"/v1/campaigns/{campaign_id}/logs{which}").text

    def bundle(self, campaign_id: str) -> bytes:
        """Read the campaign as one zip file."""
        return self._ask("GET", f"/v1/campaigns/{campaign_id}/bundle").content

    def catalogue(self, of: str) -> Document:
        """Read what can be named: of "optimizers", "tasks" or "search-spaces"."""
        found: Document = self._call("GET", f"/v1/{of}")["items"]
        return found

    def events(self, campaign_id: str, *, after: int = 0) -> Iterator[Document]:
        """Follow a campaign to its end: each event as {id, event, data}, none missing and none twice."""
        path = f"/v1/campaigns/{campaign_id}/events"
        away_since: float | None = None
        self._reach()
        while True:
            try:
                headers = {"Last-Event-ID": str(after)}
                with self._http.stream("GET", path, headers=headers) as answer:
                    if answer.status_code == httpx.codes.NO_CONTENT:
                        return
                    if answer.status_code in _AWAY:
                        raise httpx.ConnectError("the service is away")
                    if answer.is_error:
                        answer.read()
                        raise self._refusal(answer)
                    for event in _messages(answer.iter_lines()):
                        after, away_since = event["id"], None
                        yield event
            except httpx.TransportError as error:
                away_since = away_since or time.monotonic()
                self._bear(error, away_since)

    def _pages(self, path: str, items: str, query: Mapping[str, Any]) -> Iterator[Document]:
        cursor = None
        while True:
            page = self._call("GET", path, params={**query, **({"cursor": cursor} if cursor else {})})
            yield from page[items]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _call(self, method: str, path: str, **options: Any) -> Document:
        answer = self._ask(method, path, **options)
        document: Document = answer.json() if answer.content else {}
        return document

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        self._reach()
        away_since = time.monotonic()
        while True:
            try:
                answer = self._http.request(method, path, **options)
                if answer.status_code not in _AWAY:
                    break
                error: Exception = self._refusal(answer)
            except httpx.TransportError as away:
                error = away
            self._bear(error, away_since)
        if answer.is_error:
            raise self._refusal(answer)
        return answer

    def _reach(self) -> None:
        """Find out whether a service answers at all, before the first call waits for one.

        Raises:
            RequestError: None does.
        """
        if self._is_reached:
            return
        began = time.monotonic()
        while (why := self._knock()) is not None:
            if time.monotonic() + _FIRST_PAUSE_SECONDS > began + self._first_patience_seconds / 2:
                raise RequestError(
                    f"no service can be reached there ({why}); start one with `spectune serve`, or name the address of "
                    f"one (--url, SPECTUNE_URL): got {self._url}"
                )
            time.sleep(_FIRST_PAUSE_SECONDS)
        self._is_reached = True

    def _knock(self) -> str | None:
        """Return why no service answers, or None if one does; one that says nothing takes all of the first patience."""
        seconds = self._first_patience_seconds
        try:
            answer = self._http.request(
                "GET", "/healthz", timeout=httpx.Timeout(0.75 * seconds, connect=0.25 * seconds)
            )
        except httpx.UnsupportedProtocol as error:
            raise RequestError(f"no address of a service, such as {_EXAMPLE}: got {self._url!r}") from error
        except httpx.TransportError as error:
            return str(error) or type(error).__name__
        return f"it answered {answer.status_code}" if answer.status_code in _AWAY else None

    def _bear(self, error: Exception, away_since: float) -> None:
        """Wait a while for a service that is away, or give up."""
        if time.monotonic() - away_since > self._patience_seconds:
            raise RequestError(f"the service cannot be reached ({error}): got {self._url}") from error
        time.sleep(_PAUSE_SECONDS)

    def _refusal(self, answer: httpx.Response) -> RequestError:
        try:
            problem = answer.json()
            places = [f"{each['pointer'] or 'the document'}: {each['detail']}" for each in problem["errors"]]
            return RequestError("\n".join([f"{problem['detail']} ({answer.status_code})", *places]))
        except (ValueError, KeyError, TypeError):
            return RequestError(f"no answer of a service of ours: got {answer.status_code} from {self._url}")


def _messages(lines: Iterator[str]) -> Iterator[Document]:
    """Read Server-Sent Events."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield {"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])}
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
