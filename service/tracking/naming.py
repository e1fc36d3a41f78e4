"""How a trial's metrics are called in MLflow, which draws metrics of one prefix beside each other.

    loss/train  loss/validation  loss/observed  lr  time/step_seconds  time/throughput  time/optimizer_share
    spectral/orthogonality_error  spectral/update_rms  ...

What stands in no line of the table keeps its own name, but for characters that MLflow refuses.
"""

from __future__ import annotations

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
_MAX_LENGTH: Final = 250
_REFUSED: Final = re.compile(r"[^/\w.\- :]")


def metric_name(reported: str) -> str:
    """Give the name in MLflow of a metric that a trial reports."""
    if reported in NAMES:
        return NAMES[reported]
    name = _REFUSED.sub("_", reported)[:_MAX_LENGTH]
    is_path = posixpath.normpath(name) == name and name not in ("", ".") and not name.startswith(("..", "/"))
    name = name if is_path else "metric_" + name.replace("/", "_")
    return f"{name}_reported" if name in SUMMARY or name in NAMES.values() else name
