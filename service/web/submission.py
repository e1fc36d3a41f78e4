"""A campaign file, written into a page: what it would do, and its submission. Both are the API's own answers."""

from __future__ import annotations

import secrets

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from spectune.service.api.campaigns import submit
from spectune.service.api.preview import preview
from spectune.service.api.request_body import JsonBody, checked_body
from spectune.service.campaign_file import parse_document
from spectune.service.errors import SpecificationError
from spectune.service.web.rendering import render
from spectune.service.web.sessions import read_form

EXAMPLE = """\
name: muon-or-adamw
task: {name: language_model, width: 64, depth: 2, context: 64, batch_size: 16, steps: 200}
objective: {metric: validation_loss, mode: minimize}
arms:
  - optimizer: muon                       # its default space
  - optimizer: adamw
    space: {lr: {log_uniform: [1.0e-3, 1.0e-1]}}
search: {sampler: tpe, points: 16, search_seed: 0}
stopping: {rule: successive_halving, min_steps: 67, reduction_factor: 3}
finals: {keep: 1, seeds: 4}
"""


def submission_page(request: Request) -> Response:
    """Show a campaign file to be changed and submitted."""
    return render(request, "submit.html", example=EXAMPLE, idempotency_key=secrets.token_hex(16))


async def preview_file(request: Request) -> Response:
    """Return what the campaign of a file would do."""
    try:
        body = _body((await read_form(request)).get("campaign", ""))
        found = await run_in_threadpool(preview, request, body)
    except SpecificationError as error:
        return render(request, "problems.html", problems=error.problems)
    return render(request, "preview.html", preview=found)


async def submit_file(request: Request) -> Response:
    """Submit the campaign of a file and go to its page; pressed twice, it is submitted once."""
    form = await read_form(request)
    try:
        body, answer = _body(form.get("campaign", "")), Response()
        campaign = await run_in_threadpool(submit, request, answer, body, form.get("idempotency_key"))
    except SpecificationError as error:
        return render(request, "problems.html", problems=error.problems)
    return Response(status_code=204, headers={"HX-Redirect": f"/campaigns/{campaign.id}"})


def _body(text: str) -> JsonBody:
    return checked_body(parse_document(text), text.encode())
