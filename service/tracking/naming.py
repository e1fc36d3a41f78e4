"""How a trial's metrics are called in MLflow, which draws metrics of one prefix beside each other.

    loss/train  loss/validation  loss/observed  lr  time/step_seconds  time/throughput  time/optimizer_share
    spectral/orthogonality_error  spectral/update_rms  ...

What stands in no line of the table keeps its own name, as long as MLflow takes it. In one that it refuses, what is
refused is replaced, and a fingerprint of the whole name at its end tells it from others that would look the same.

A campaign's own run has metrics, too: `num_trials/<state>`, `device_seconds`, `best` (the best search value, the mean
over the seeds of its point) and `best_final` (the mean of the finals of the best point, if arms are compared by them).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Final

NAMES: Final = {
    "loss": "loss/train",
    "validation_loss": "loss/validation",
    "observed_loss": "loss/observed",
    "validation_accuracy": "accuracy/validation",
    "step_time_seconds": "time/step_seconds",
    "throughput": "time/throughput",
    "optimizer_share": "time/optimizer_share",
    "timing_valid": "time/valid",
}
LOG_LR: Final = "log10_lr"
SUMMARY: Final = ("best", "final", "steps", "device_seconds", LOG_LR)
"""What a trial's run holds besides once it has ended: the best and the last objective, its steps, its share of the
devices' time, and the logarithm of its learning rate, because MLflow's axes of parameters are linear."""
_TAKEN: Final = {*SUMMARY, *NAMES.values()}
_REPORTED: Final = "_reported"
_MAX_LENGTH: Final = 250
_FINGERPRINT: Final = 12  # hexadecimal digits
_MADE: Final = re.compile(rf":[0-9a-f]{{{_FINGERPRINT}}}$")
_REFUSED: Final = re.compile(r"[^/\w.\- :]")


def metric_name(reported: str) -> str:
    """Return the name in MLflow of a metric that a trial reports."""
    if reported in NAMES:
        return NAMES[reported]
    if reported in _TAKEN:
        return reported + _REPORTED
    name = _REFUSED.sub("_", reported)
    is_path = posixpath.normpath(name) == name and name not in ("", ".") and not name.startswith(("..", "/"))
    if name == reported and is_path and len(name) <= _MAX_LENGTH and not _looks_made(name):
        return name
    fingerprint = hashlib.sha256(reported.encode(errors="surrogatepass")).hexdigest()[:_FINGERPRINT]
    name = name if is_path else "metric_" + name.replace("/", "_")
    return f"{name[: _MAX_LENGTH - _FINGERPRINT - 1]}:{fingerprint}"


def _looks_made(name: str) -> bool:
    """Return whether a reported name could be one that was made here for another."""
    return name.removesuffix(_REPORTED) in _TAKEN or _MADE.search(name) is not None
