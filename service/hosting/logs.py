"""Structured logs: one JSON object a line, in which no secret is left standing."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

PROBES = ("/healthz", "/readyz", "/metrics")
_SECRETS = (
    re.compile(r"(spk_[0-9a-f]{1,16})_[0-9a-zA-Z]+"),  # an API key keeps its id
    re.compile(r"(://[^:/@\s]+):[^@/\s]+(?=@)"),  # the password of an address
    re.compile(r"(?i)(bearer)\s+\S+"),
)


def without_secrets(text: str) -> str:
    """Blot out API keys, passwords in addresses and bearer tokens."""
    for secret in _SECRETS:
        text = secret.sub(r"\1:***", text)
    return text


class JsonFormatter(logging.Formatter):
    """Writes a record as a JSON object: at, level, logger, message and, of an error, its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        told = {
            "at": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: without_secrets(text) for name, text in told.items()})


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Return whether a record is more than a probe that found everything well, as one comes every few seconds."""
    if record.name != "uvicorn.access" or not isinstance(record.args, tuple) or len(record.args) < 5:
        return True
    _, method, path, _, status = record.args
    return (method, status) != ("GET", 200) or str(path).partition("?")[0] not in PROBES


def set_up_logs() -> None:
    """Send every log to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.addFilter(is_worth_telling)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("alembic", "mlflow", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
