"""What a driver may tell the ledger, as JSON-plain records, and how the ledger enters each.

trial_created   a point × seed was drawn; the trial is PENDING
trial_moved     the trial changed its state, with reason and message
trial_lost      the worker under the trial was lost; the trial waits again
observation     the trial reported at a step
device_seconds  the trial used a device for a while without a report that counts
planned         it was found out, on the trial, how many of its arm are best trained together
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from service.campaign.lifecycle import TrialState
from service.ledger.numbers import from_json, kind_of, metrics_to_json
from service.ledger.spool import Record
from service.ledger.tables import events, observations, trials


def trial_created(
    *, trial: int, arm: int, point: int, seed_index: int, config: Mapping[str, Any], ask: Mapping[str, Any], at: int
) -> Record:
    """Say that a trial exists and waits."""
    place = {"trial": trial, "arm": arm, "point": point, "seed_index": seed_index}
    return {"kind": "trial_created", **place, "config": dict(config), "ask": dict(ask), "at": at}


def trial_moved(*, trial: int, state: TrialState, reason: str, message: str = "", at: int) -> Record:
    """Say that a trial changed its state."""
    return {"kind": "trial_moved", "trial": trial, "state": str(state), "reason": reason, "message": message, "at": at}


def trial_lost(*, trial: int, message: str, at: int) -> Record:
    """Say that the worker under a trial was lost and that the trial waits for another."""
    return {"kind": "trial_lost", "trial": trial, "reason": "worker_lost", "message": message, "at": at}


def observation(
    *, trial: int, step: int, metrics: Mapping[str, float], objective: float, device_seconds: float, produced_at: int
) -> Record:
    """Say what a trial reported at a step; `device_seconds` since its report before."""
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
    """Say how many trials of an arm train together from now on, and why."""
    return {"kind": "planned", "trial": trial, "arm": arm, "plan": dict(plan), "at": at}


def enter(connection: Connection, campaign_id: str, attempt: int, records: Sequence[Record], *, sequence: int) -> int:
    """Enter records in order, inside the caller's transaction that holds the campaign's row.

    Args:
        connection: The open transaction.
        campaign_id: Which campaign.
        attempt: The attempt that produced the records.
        records: Made by the functions above.
        sequence: The campaign's last sequence number.

    Returns:
        The campaign's new last sequence number.
    """
    writer = _Writer(connection, campaign_id, attempt, sequence)
    for record in records:
        writer.enter(record)
    return writer.sequence


class _Writer:
    """One transaction's worth of records of one campaign."""

    def __init__(self, connection: Connection, campaign_id: str, attempt: int, sequence: int) -> None:
        self._connection = connection
        self._campaign_id = campaign_id
        self._attempt = attempt
        self.sequence = sequence

    def enter(self, record: Record) -> None:
        match record["kind"]:
            case "trial_created":
                self._create_trial(record)
            case "trial_moved":
                self._update_trial(record, {"state": record["state"], **_reason(record)})
                self._tell(record, {"state": record["state"], "reason": record["reason"], "message": record["message"]})
            case "trial_lost":
                losses = {"num_losses": trials.c.num_losses + 1, "state": TrialState.PENDING}
                self._update_trial(record, losses | _reason(record))
                self._tell(record, {"state": TrialState.PENDING, "message": record["message"]})
            case "observation":
                self._observe(record)
            case "device_seconds":
                self._update_trial(record, {"device_seconds": trials.c.device_seconds + record["device_seconds"]})
            case "planned":
                self._tell(record, {"arm": record["arm"], **record["plan"]})
            case kind:
                raise AssertionError(f"a record of unknown kind: got {kind!r}")

    def _create_trial(self, record: Record) -> None:
        place = {name: record[name] for name in ("arm", "point", "seed_index", "config", "ask")}
        values = {
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
            "device_seconds": 0.0,
        }
        self._connection.execute(insert(trials).values(values | place))
        self._tell(record, place)

    def _observe(self, record: Record) -> None:
        used = {"device_seconds": trials.c.device_seconds + record["device_seconds"]}
        if self._is_known(record):
            self._update_trial(record, used)
            return
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
        self._connection.execute(insert(observations).values(values))
        objective = from_json(record["objective"])
        kind = kind_of(objective)
        column = {"objective": objective if kind == "finite" else None, "objective_kind": kind}
        self._update_trial(record, {"last_step": record["step"], "num_losses": 0} | used | column)

    def _is_known(self, record: Record) -> bool:
        same = (observations.c.campaign_id == self._campaign_id) & (observations.c.trial == record["trial"])
        query = select(observations.c.step).where(same & (observations.c.step == record["step"]))
        return self._connection.execute(query).first() is not None

    def _update_trial(self, record: Record, values: Mapping[str, Any]) -> None:
        mine = (trials.c.campaign_id == self._campaign_id) & (trials.c.number == record["trial"])
        changed = self._connection.execute(update(trials).where(mine).values(**values)).rowcount
        assert changed == 1, f"no such trial: got {record['trial']}"

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
        self._connection.execute(insert(events).values(values))


def _reason(record: Record) -> dict[str, Any]:
    return {"reason": record["reason"], "message": record["message"], "since": record["at"]}
