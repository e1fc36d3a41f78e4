"""The one place where training meets Ray Tune: a Tune trial is not one of our trials but a worker slot."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError

from spectune.trainers.worker.messages import SlotCommand
from spectune.trainers.worker.slot import BoardLostError, Slot, SlotOptions
from spectune.trainers.worker.worker_output import WorkerOutput


class ActorCommands:
    """Commands from the driver's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def command(self, slot: str, number: int) -> SlotCommand:
        """Wait for the command on a report."""
        answer = cloudpickle.loads(_ask(self._actor.command, slot, number))
        assert isinstance(answer, SlotCommand)
        return answer

    def is_stopping(self) -> bool:
        """Return whether the driver wants every slot to end."""
        return bool(_ask(self._actor.is_stopping))


def _ask(method: Any, *arguments: Any) -> Any:
    try:
        return ray.get(method.remote(*arguments))
    except RayError as error:
        raise BoardLostError(str(error)) from error


def _end_with_parent(parent: int) -> None:
    """End this process when the raylet that started it is gone: Ray itself looks whether process 1 has adopted it.

    Where another process adopts orphans, the worker of a machine that Ray has given up would stay for ever.
    """
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _end_on_sigterm() -> None:
    """End this process at SIGTERM: Ray raises SystemExit, which the slot would take for an exit of the user's code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))


def placement(options: SlotOptions, avoid: list[str]) -> tune.PlacementGroupFactory:
    """Return what a slot needs, and on which machines it is not to be."""
    bundle = {"CPU": float(options.cpus)} | ({"GPU": options.gpus} if options.gpus else {})
    elsewhere = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoid)})"}]} if avoid else {}
    return tune.PlacementGroupFactory([bundle], **elsewhere)


class CohortSlot(tune.Trainable):  # type: ignore[misc]
    """The slot as Ray Tune sees it: a class trainable whose result carries the slot's report."""

    def setup(self, config: dict[str, Any], *, commands: Any = None, options: SlotOptions | None = None) -> None:
        """Prepare the slot.

        Args:
            config: `{"slot": name}`.
            commands: The driver's command actor.
            options: What is the same for all trials.
        """
        assert options is not None, "run_slots gives them: got None"
        os.umask(options.file_mask)  # in a cluster this process has its node's
        if options.working_folder:
            os.chdir(options.working_folder)  # Ray may have started this process before there was such a folder
        self._slot_name = config["slot"]
        attribute: dict[str, Any] = {}
        if options.output:
            attribute = {"attribute": WorkerOutput(Path(options.output) / f"{self._slot_name}.log").attribute}
        self._slot = Slot(self._slot_name, ActorCommands(commands), options, **attribute)
        self._is_known = False
        _end_on_sigterm()
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent-watch", daemon=True).start()

    def step(self) -> dict[str, Any]:
        """Say on which machine this is, then train one stretch a call; Tune calls this until it says `done`."""
        if not self._is_known:
            self._is_known = True
            place, execution = ray.get_runtime_context().get_node_id(), self._slot.execution()
            return {"slot": self._slot_name, "place": place, "execution": execution, "done": False}
        report = self._slot.step()
        return {"slot": self._slot_name, "report": report, "done": report is None}
