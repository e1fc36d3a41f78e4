"""Logs are JSON, and hold no secret."""

from __future__ import annotations

import json
import logging

from spectune.service.hosting.logs import JsonFormatter, is_worth_telling, without_secrets
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role


def test_a_record_is_one_line_of_json_with_its_traceback() -> None:
    try:
        raise ValueError("spk_0011_aabbcc leaked")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "it %s\nfailed", ("has",), (type(error), error, None)
        )
    told = json.loads(JsonFormatter().format(record))
    assert (told["level"], told["message"]) == ("ERROR", "it has\nfailed")
    assert "spk_0011:***" in told["traceback"]
    assert "aabbcc" not in told["traceback"]


def test_keys_passwords_and_tokens_are_blotted_out() -> None:
    with ServiceLedger("sqlite://") as ledger:
        key = ledger.create_key(owner="me", role=Role.ADMIN)
    text = without_secrets(f"Bearer abc.def {key} postgresql://me:s3cret@host/x http://host:80/a@b")
    for secret in ("abc.def", key.split("_")[2], "s3cret"):
        assert secret not in text
    assert "http://host:80/a@b" in text


def test_probes_that_find_everything_well_are_not_told() -> None:
    def told(path: str, status: int, name: str = "uvicorn.access") -> bool:
        text = '%s - "%s %s HTTP/%s" %d'
        args = ("127.0.0.1:5", "GET", path, "1.1", status)
        return is_worth_telling(logging.LogRecord(name, logging.INFO, __file__, 1, text, args, None))

    assert not told("/healthz", 200)
    assert not told("/metrics?name[]=x", 200)
    assert told("/readyz", 503)
    assert told("/v1/campaigns", 200)
    assert told("/healthz", 200, name="other")
