"""What a driver may tell the ledger, as JSON-plain records, and how the ledger enters each.

trial_created   a point × seed was drawn; the trial is PENDING
trial_moved     the trial changed its state, with reason and message
trial_lost      the worker under the trial was lost, or its code failed for the first time; the trial waits again
observation     the trial reported at a step
device_seconds  the trial used a device for a while without a report that counts
fusion_checked  on a trial, a fused step was compared with the step alone
shrunk          on the trial, memory was found to bear fewer of its arm together
quarantined     after a failure of the trial, a worker or a machine is not trusted any more
planned         it was found out, on the trial, how many of its arm are best trained together
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

from sqlalchemy import Connection, Executable, RowMapping, bindparam, insert, select, update

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.numbers import from_json, kind_of, metrics_to_json
from spectune.service.ledger.record_shapes import RecordError, check_record
from spectune.service.ledger.spool import Record
from spectune.service.ledger.tables import events, observations, trials

_MUTABLE: Final = (
    "state",
    "reason",
    "message",
    "since",
    "num_losses",
    "last_step",
    "objective",
    "objective_kind",
    "device_seconds",
    "executions",
)
"""The columns of a trial that change after it was created."""


def trial_created(
    *, trial: int, arm: int, point: int, seed_index: int, config: Mapping[str, Any], ask: Mapping[str, Any], at: int
) -> Record:
    """Say that a trial exists and waits."""
    place = {"trial": trial, "arm": arm, "point": point, "seed_index": seed_index}
    return {"kind": "trial_created", **place, "config": dict(config), "ask": dict(ask), "at": at}


def trial_moved(
    *,
    trial: int,
    state: TrialState,
    reason: str,
    message: str = "",
    execution: Mapping[str, Any] | None = None,
    at: int,
) -> Record:
    """Say that a trial changed its state; `execution` says on what it computes from now on, if that is known."""
    told = {"reason": reason, "message": clean_text(message), "at": at}
    move = {"kind": "trial_moved", "trial": trial, "state": str(state), **told}
    return move if execution is None else {**move, "execution": dict(execution)}


def trial_lost(*, trial: int, message: str, at: int, reason: str = "worker_lost") -> Record:
    """Say that a trial waits for another worker: it lost its own, or its code failed there for the first time."""
    return {"kind": "trial_lost", "trial": trial, "reason": reason, "message": clean_text(message), "at": at}


def observation(
    *, trial: int, step: int, metrics: Mapping[str, float], objective: float, device_seconds: float, produced_at: int
) -> Record:
    """Return what a trial reported at a step; `device_seconds` since its report before."""
    return {
        "kind": "observation",
        "trial": trial,
        "step": step,
        "metrics": metrics_to_json(metrics),
        "objective": metrics_to_json({"objective": objective})["objective"],
        "device_seconds": device_seconds,
        "at": produced_at,
    }


def device_seconds(*, trial: int, seconds: float, at: int) -> Record:
    """Say that a trial used a device without a report that counts (redone or interrupted steps)."""
    return {"kind": "device_seconds", "trial": trial, "device_seconds": seconds, "at": at}


def planned(*, trial: int, arm: int, plan: Mapping[str, Any], at: int) -> Record:
    """Return how many trials of an arm train together from now on, and why."""
    return {"kind": "planned", "trial": trial, "arm": arm, "plan": dict(plan), "at": at}


def shrunk(*, trial: int, arm: int, num_members: int, message: str, at: int) -> Record:
    """Say that so many trials of an arm train together from now on, because more did not fit into memory."""
    shrunk_to = {"members": num_members, "message": clean_text(message)}
    return {"kind": "shrunk", "trial": trial, "arm": arm, "to": shrunk_to, "at": at}


def quarantined(*, trial: int, message: str, at: int) -> Record:
    """Say that a worker or a machine is not trusted any more, after a failure of the trial."""
    return {"kind": "quarantined", "trial": trial, "message": clean_text(message), "at": at}


def fusion_checked(*, trial: int, arm: int, step: int, deviation: float, tolerance: float, at: int) -> Record:
    """Return how far a fused step lay apart from the step alone, in units of the weights' root mean square."""
    check = {"step": step, "holds": deviation <= tolerance, **metrics_to_json({"deviation": deviation})}
    return {"kind": "fusion_checked", "trial": trial, "arm": arm, "check": {**check, "tolerance": tolerance}, "at": at}


def enter(connection: Connection, campaign_id: str, attempt: int, records: Sequence[Record], *, sequence: int) -> int:
    """Enter records in order, inside the caller's transaction that holds the campaign's row.

    Rows are read, changed and written in bulk: what is entered is the same as one record after the other.

    Args:
        connection: The open transaction.
        campaign_id: Which campaign.
        attempt: The attempt that produced the records.
        records: Made by the functions above.
        sequence: The campaign's last sequence number.

    Returns:
        The campaign's new last sequence number.

    Raises:
        RecordError: A record is none that a driver writes; nothing may be kept of the transaction.
    """
    for record in records:
        check_record(record)
    batch = _Batch(connection, campaign_id, attempt, records, sequence)
    for record in records:
        batch.enter(record)
    batch.write()
    return batch.sequence


class _Batch:
    """One transaction's worth of records of one campaign."""

    def __init__(
        self, connection: Connection, campaign_id: str, attempt: int, records: Sequence[Record], sequence: int
    ) -> None:
        self._connection = connection
        self._campaign_id = campaign_id
        self._attempt = attempt
        self.sequence = sequence
        numbers = {record["trial"] for record in records}
        self._known = self._steps_of({each["trial"] for each in records if each["kind"] == "observation"})
        self._old = {row["number"]: dict(row) for row in self._rows_of(numbers)}
        self._new: dict[int, dict[str, Any]] = {}
        self._changed: set[int] = set()
        self._observations: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []

    def enter(self, record: Record) -> None:
        match record["kind"]:
            case "trial_created":
                self._create_trial(record)
            case "trial_moved":
                row = self._row(record)
                row.update({"state": record["state"], **_reason(record)})
                if record.get("execution") not in (None, *row["executions"]):
                    row["executions"] = [*row["executions"], record["execution"]]
                self._tell(record, {"state": record["state"], "reason": record["reason"], "message": record["message"]})
            case "trial_lost":
                row = self._row(record)
                row.update({"num_losses": row["num_losses"] + 1, "state": TrialState.PENDING, **_reason(record)})
                self._tell(record, {"state": TrialState.PENDING, "message": record["message"]})
            case "observation":
                self._observe(record)
            case "device_seconds":
                self._row(record)["device_seconds"] += record["device_seconds"]
            case "planned":
                self._tell(record, {"arm": record["arm"], **record["plan"]})
            case "shrunk":
                self._tell(record, {"arm": record["arm"], **record["to"]})
            case "quarantined":
                self._tell(record, {"message": record["message"]})
            case "fusion_checked":
                self._tell(record, {"arm": record["arm"], **record["check"]})
            case kind:
                raise AssertionError(f"check_record lets no other kind pass: got {kind!r}")

    def write(self) -> None:
        """Write what has been entered."""
        mine = (trials.c.campaign_id == self._campaign_id) & (trials.c.number == bindparam("which"))
        change = update(trials).where(mine).values({name: bindparam(f"new_{name}") for name in _MUTABLE})
        changes = [
            {"which": number, **{f"new_{name}": self._old[number][name] for name in _MUTABLE}}
            for number in sorted(self._changed)
        ]
        statements: list[tuple[Executable, list[dict[str, Any]]]] = [
            (insert(trials), list(self._new.values())),
            (change, changes),
            (insert(observations), self._observations),
            (insert(events), self._events),
        ]
        for statement, rows in statements:
            if rows:
                self._connection.execute(statement, rows)

    def _create_trial(self, record: Record) -> None:
        if record["trial"] in self._new or record["trial"] in self._old:
            raise RecordError(f"the trial exists already: got {record['trial']}")
        place = {name: record[name] for name in ("arm", "point", "seed_index", "config", "ask")}
        self._new[record["trial"]] = {
            "campaign_id": self._campaign_id,
            "number": record["trial"],
            "state": TrialState.PENDING,
            "reason": "drawn",
            "message": "",
            "since": record["at"],
            "created_at": record["at"],
            "attempt": self._attempt,
            "num_losses": 0,
            "last_step": 0,
            "objective": None,
            "objective_kind": None,
            "device_seconds": 0.0,
            "executions": [],
            **place,
        }
        self._tell(record, place)

    def _observe(self, record: Record) -> None:
        row = self._row(record)
        row["device_seconds"] += record["device_seconds"]
        key = record["trial"], record["step"]
        if key in self._known:
            return
        self._known.add(key)
        self.sequence += 1
        values = {
            "campaign_id": self._campaign_id,
            "trial": record["trial"],
            "step": record["step"],
            "sequence": self.sequence,
            "attempt": self._attempt,
            "produced_at": record["at"],
            "metrics": record["metrics"],
        }
        self._observations.append(values)
        objective = from_json(record["objective"])
        kind = kind_of(objective)
        column = {"objective": objective if kind == "finite" else None, "objective_kind": kind}
        row["num_losses"] = 0
        if record["step"] > row["last_step"]:  # what comes late is kept, but says nothing of where the trial stands
            row.update({"last_step": record["step"]} | column)

    def _row(self, record: Record) -> dict[str, Any]:
        """Return a trial's row, to be changed."""
        number = record["trial"]
        if number in self._new:
            return self._new[number]
        if number not in self._old:
            raise RecordError(f"no such trial: got {number}")
        self._changed.add(number)
        return self._old[number]

    def _tell(self, record: Record, body: Mapping[str, Any]) -> None:
        self.sequence += 1
        values = {
            "campaign_id": self._campaign_id,
            "sequence": self.sequence,
            "at": record["at"],
            "kind": record["kind"],
            "trial": record["trial"],
            "body": dict(body),
        }
        self._events.append(values)

    def _rows_of(self, numbers: Set[int]) -> Iterator[RowMapping]:
        columns = [trials.c.number, *(trials.c[name] for name in _MUTABLE)]
        for some in _pieces(numbers):
            mine = (trials.c.campaign_id == self._campaign_id) & trials.c.number.in_(some)
            yield from self._connection.execute(select(*columns).where(mine)).mappings()

    def _steps_of(self, numbers: Set[int]) -> set[tuple[int, int]]:
        """List what has been observed of these trials."""
        known: set[tuple[int, int]] = set()
        for some in _pieces(numbers):
            mine = (observations.c.campaign_id == self._campaign_id) & observations.c.trial.in_(some)
            query = select(observations.c.trial, observations.c.step).where(mine)
            known |= {(row.trial, row.step) for row in self._connection.execute(query)}
        return known


def _pieces(numbers: Set[int]) -> Iterator[list[int]]:
    """Split numbers into lists that a statement can hold: SQLite takes 32 766 parameters, older ones 999."""
    ordered = sorted(numbers)
    return (ordered[start : start + 900] for start in range(0, len(ordered), 900))


def _reason(record: Record) -> dict[str, Any]:
    return {"reason": record["reason"], "message": record["message"], "since": record["at"]}
