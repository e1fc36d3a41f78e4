"""Whether a cluster has, at this moment, a machine that a worker fits on; what is missing now may come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from spectune.service.campaign.model.records import Event
from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.errors import LedgerError

_log = logging.getLogger(__name__)
LOOK_SECONDS: Final = 1.0

WAITING: Final = "waiting_for_capacity"
"""The reason of a campaign whose driver waits."""

_ROUNDING: Final = 1e-6  # of a GPU


def lacking_capacity(resources: ResourcesSection, machines: Sequence[Mapping[str, float]]) -> str | None:
    """Return what the workers of a campaign need and no machine has; None if one fits on some machine.

    Args:
        resources: What the campaign's workers need.
        machines: What each living machine has in all, as Ray names it: CPU, GPU.
    """
    if any(_fits(resources, machine) for machine in machines):
        return None
    needed = _counted(resources.cpus, "CPU") + (f" and {_counted(resources.gpus, 'GPU')}" if resources.gpus else "")
    if not machines:
        return f"a worker needs a machine with {needed}; the cluster has no machine"
    largest = max(machines, key=lambda machine: (_amount(machine, "GPU"), _amount(machine, "CPU")))
    has = _counted(_amount(largest, "CPU"), "CPU")
    if resources.gpus:
        has += f" and {_counted(_amount(largest, 'GPU'), 'GPU')}"
    which = "the only one has" if len(machines) == 1 else f"the largest of the cluster's {len(machines)} has"
    return f"a worker needs a machine with {needed}; {which} {has}"


def _fits(resources: ResourcesSection, machine: Mapping[str, float]) -> bool:
    enough_gpus = _amount(machine, "GPU") + _ROUNDING >= resources.gpus
    return _amount(machine, "CPU") >= resources.cpus and enough_gpus


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def _amount(machine: Mapping[str, float], kind: str) -> float:
    return machine.get(kind, 0.0)


class _ExplainingLedger(Protocol):
    def explain_attempt(self, campaign_id: str, attempt: int, *, reason: str, message: str) -> None:
        """Record what a running campaign waits for. Raises FencedError."""


class CapacityWait:
    """Waits until a machine is there, says so in the ledger, and counts the time that no budget is to pay for.

    Args:
        ledger: Where a campaign's reason stands.
        campaign_id: Which campaign.
        attempt: Its attempt.
        resources: What its workers need.
        machines: Looks at what each living machine has.
    """

    def __init__(
        self,
        ledger: _ExplainingLedger,
        campaign_id: str,
        attempt: int,
        *,
        resources: ResourcesSection,
        machines: Callable[[], Sequence[Mapping[str, float]]],
    ) -> None:
        self._ledger = ledger
        self._of = campaign_id, attempt
        self._resources = resources
        self._machines = machines
        self._began_at: float | None = None
        self._waited = 0.0

    @property
    def seconds(self) -> float:
        """How long has been waited so far."""
        began_at = self._began_at
        return self._waited + (time.monotonic() - began_at if began_at is not None else 0.0)

    def wait(self, *, is_over: Callable[[], bool], woken: threading.Event) -> None:
        """Return when a worker fits on some machine, or nothing is left to wait for.

        Args:
            is_over: Whether the campaign has been stopped meanwhile.
            woken: Set when `is_over` may have changed.
        """
        told = None
        self._began_at = time.monotonic()
        while (lacking := lacking_capacity(self._resources, self._machines())) is not None and not is_over():
            if lacking != told:
                _log.warning("waits for capacity: %s", lacking)
                self._explain(WAITING, f"waits for capacity: {lacking}")
                told = lacking
            woken.wait(LOOK_SECONDS)
        self._waited, self._began_at = self.seconds, None
        if told is None:
            self._waited = 0.0
        else:
            self._explain("driver_started", "")

    def _explain(self, reason: str, message: str) -> None:
        try:
            self._ledger.explain_attempt(*self._of, reason=reason, message=message)
        except LedgerError as error:  # what is said is not worth the attempt
            _log.warning("the ledger is not told what the campaign waits for: %s", error)


def waited_seconds(events: Iterable[Event], spans: Mapping[int, int]) -> float:
    """Add up how long earlier attempts waited for capacity.

    Args:
        events: The campaign's events of the kind `attempt_explained`, in order.
        spans: When each attempt ended or was last heard of, in milliseconds: a driver may die while it waits.
    """
    waited, began = 0.0, dict[int, int]()
    for event in events:
        attempt = event.body["attempt"]
        if event.body["reason"] == WAITING:
            began.setdefault(attempt, event.at)
        elif attempt in began:
            waited += event.at - began.pop(attempt)
    waited += sum(max(0, spans[attempt] - at) for attempt, at in began.items() if attempt in spans)
    return waited / 1000
