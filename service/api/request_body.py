"""Reading a JSON body: bounded in bytes and in time, strict JSON, nothing that a database could not hold."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from spectune.search_spaces.json_values import json_pointer
from spectune.service.campaign.specification.problem_list import json_problems
from spectune.service.errors import BodyError, Problem, SpecificationError

MAX_BYTES = 1024**2
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class JsonBody:
    """A request's body.

    Attributes:
        document: A mapping of JSON values.
        fingerprint: SHA-256 of its bytes.
    """

    document: Mapping[str, Any]
    fingerprint: str


async def read_body(request: Request) -> JsonBody:
    """Read a request's body.

    Raises:
        BodyError: It is too large, too slow, or no JSON.
        SpecificationError: It is no mapping, or holds what no campaign can.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BodyError("the body must be application/json", status=415, kind="media-type")
    content = await read_bytes(request)
    return checked_body(_parse(content), content)


Body = Annotated[JsonBody, Depends(read_body)]


def checked_body(document: Any, content: bytes) -> JsonBody:
    """Take a document that came as some bytes for a body.

    Raises:
        SpecificationError: It is no mapping, or holds what no campaign can.
    """
    problems = [*json_problems(document), *_nul_problems(document)]
    if not isinstance(document, Mapping):
        problems = [Problem("", "a mapping is needed")]
    if problems:
        raise SpecificationError(problems)
    return JsonBody(document, hashlib.sha256(content).hexdigest())


async def read_bytes(request: Request) -> bytes:
    """Read what a request sends.

    Raises:
        BodyError: It is too large or too slow, or its client went away.
    """
    try:
        return await asyncio.wait_for(_read(request), TIMEOUT_SECONDS)
    except TimeoutError as error:
        message = f"the body did not arrive within {TIMEOUT_SECONDS:g} s"
        raise BodyError(message, status=408, kind="timeout") from error
    except ClientDisconnect as error:  # nobody hears it, and it is no error of ours
        raise BodyError("the client went away", status=400, kind="disconnected") from error


async def _read(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BYTES:
            raise BodyError(f"a body has at most {MAX_BYTES} bytes", status=413, kind="too-large")
    return bytes(content)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _MistakeError) else "see RFC 8259"
        raise BodyError(f"the body is no JSON ({reason})", status=400, kind="json") from error


class _MistakeError(ValueError):
    """What Python's reader would let pass."""


def _refuse(_: str) -> Any:
    raise _MistakeError("NaN and infinities are no numbers of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _MistakeError("a name stands twice in an object")
    return dict(pairs)


def _nul_problems(value: Any, pointer: str = "") -> list[Problem]:
    """Find the character that PostgreSQL can hold in no text."""
    if isinstance(value, str):
        return [Problem(pointer, "text may not hold the character U+0000")] if "\0" in value else []
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found = [problem for key, each in children for problem in _nul_problems(each, pointer + json_pointer(key))]
    if isinstance(value, Mapping) and any("\0" in key for key in value):
        found.append(Problem(pointer, "text may not hold the character U+0000"))
    return found
