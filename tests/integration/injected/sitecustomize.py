"""Python imports this at its start: in a driver, Tune's callback raises once, when a file tells it to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

if "spectune.service.driver" in sys.orig_argv:
    from spectune.service.driver.tune_driver import SlotCallback

    _whole = SlotCallback.on_trial_result

    def _raises(self: SlotCallback, *given: Any, **named: Any) -> None:
        mark = Path(os.environ["INJECTED"], "callback_raises")
        if mark.exists():
            mark.unlink()
            raise RuntimeError("this callback was told to raise")
        _whole(self, *given, **named)

    SlotCallback.on_trial_result = _raises
