"""Runs worker slots through `ray.tune.Tuner`: Tune places them, notices when one dies, and carries their reports.

Tune sees slots, not trials: the searcher opens one whenever the event loop wants more of them, the callback hands every
result to the event loop, and nothing here decides anything. Tune's own retries, snapshots and loggers are off.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
from ray.tune.search import Searcher

from spectune.service.driver.event_loop import EventLoop
from spectune.trainers.worker.ray_cohort import CohortSlot, placement
from spectune.trainers.worker.slot import SlotOptions

STOP_GRACE_SECONDS = 20.0
SETTLE_SECONDS = 1.0
_LONGEST_CAUSE = 400  # characters: Ray adds advice for operators

_log = logging.getLogger(__name__)


class _Unpickled:
    """What Tune may pickle as empty: it writes a copy of itself that nobody ever reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SlotSearcher(_Unpickled, Searcher):  # type: ignore[misc]
    """Opens slots while there is work for more of them than there are.

    Args:
        event_loop: Knows the work.
        num_workers: At most so many slots at a time.
    """

    def __init__(self, event_loop: EventLoop, *, num_workers: int) -> None:
        super().__init__(metric=None, mode=None)
        self._event_loop = event_loop
        self._num_workers = num_workers
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Open a slot, wait, or say that the campaign is over."""
        if not self._live:
            self._event_loop.settle(SETTLE_SECONDS)  # or Tune, told to wait, asks again after a whole second, twice
        if self._event_loop.is_over():
            return str(Searcher.FINISHED)
        if len(self._live) >= min(self._num_workers, self._event_loop.num_slots_wanted()):
            return None
        self._live.add(trial_id)
        return {"slot": trial_id, "avoid": sorted(self._event_loop.quarantined())}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Count a slot out; the callback tells the event loop."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a new attempt is rebuilt from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a new attempt is rebuilt from the ledger."""


class SlotCallback(_Unpickled, tune.Callback):  # type: ignore[misc]
    """Hands what happens to slots to the event loop; never raises, because Tune would end the campaign."""

    def __init__(self, event_loop: EventLoop) -> None:
        self._event_loop = event_loop

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A slot is there, or has reported; the result with which it ends has no report."""
        if "place" in result:
            self._event_loop.open_slot(result["slot"], result["place"], result["execution"])
        elif result["report"] is not None:
            self._event_loop.take(result["slot"], result["report"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A slot ended as it was told to."""
        self._event_loop.close_slot(trial.config["slot"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A slot's worker is gone."""
        self._event_loop.lose_slot(trial.config["slot"], _what_happened(trial))


def _what_happened(trial: Any) -> str:
    """Return in one line why a slot's worker is gone, as far as Tune knows.

    Tune writes the error beside the trial's other files on this machine; its own `get_error` looks in the storage, to
    which nothing is copied.
    """
    try:
        lines = Path(trial.error_file or os.devnull).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:  # a full disk
        return f"its worker is gone, and why cannot be read ({error})"
    known = [line.strip() for line in lines if line.strip()]
    return textwrap.shorten(known[-1], _LONGEST_CAUSE, placeholder=" ...") if known else "its worker is gone"


class GraceStopper(_Unpickled, tune.Stopper):  # type: ignore[misc]
    """The fallback: ends Tune's experiment if slots have not ended a while after they were asked to.

    Args:
        asked_at: When the stop was asked for, in `time.monotonic` seconds; None before.
    """

    def __init__(self, asked_at: Callable[[], float | None]) -> None:
        self._asked_at = asked_at

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no slot alone."""
        return False

    def stop_all(self) -> bool:
        """Return whether the grace is over."""
        asked_at = self._asked_at()
        return asked_at is not None and time.monotonic() - asked_at > STOP_GRACE_SECONDS


def run_slots(
    event_loop: EventLoop,
    *,
    board: Any,
    num_workers: int,
    options: SlotOptions,
    folder: Path,
    stop_asked_at: Callable[[], float | None],
) -> None:
    """Run slots until the event loop says that the campaign is over.

    Args:
        event_loop: Knows the work and takes the reports.
        board: The command actor that slots wait at.
        num_workers: At most so many slots at a time.
        options: What is the same for all trials of a slot.
        folder: Where Tune keeps its own files; may be deleted at any moment.
        stop_asked_at: When a stop was asked for.
    """
    _leave_environments_alone()
    _leave_mlflow_unloaded()
    equipped = tune.with_parameters(CohortSlot, commands=board, options=options)
    trainable = tune.with_resources(equipped, lambda config: placement(options, config["avoid"]))
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=SlotSearcher(event_loop, num_workers=num_workers),
            num_samples=-1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[SlotCallback(event_loop)],
            stop=GraceStopper(stop_asked_at),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()


def _leave_environments_alone() -> None:
    """Give Tune's workers no runtime environment: they have their node's variables, or those of our own job.

    One of their own would keep them out of the processes that Ray starts in advance, and start each of them twice, the
    first time to set it up. It would also hold the AWS keys of this process, and Ray writes it into its logs.
    """
    DEFAULT_ENV_VARS.clear()
    ENV_VARS_TO_PROPAGATE.clear()


def _leave_mlflow_unloaded() -> None:
    """Let Tune know its own MLflow logger, for which it looks among our callbacks, without MLflow: two seconds."""
    if "mlflow" in sys.modules:
        return
    sys.modules["mlflow"] = None  # type: ignore[assignment]  # importing it fails, as where it is not installed
    try:
        importlib.import_module("ray.air.integrations.mlflow")
    finally:
        del sys.modules["mlflow"]
