"""What the scheduler decides, and what it knows of each slot."""

from __future__ import annotations

from dataclasses import dataclass, field

from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.ledger.spool import Record
from spectune.trainers.worker.arithmetic import Execution
from spectune.trainers.worker.messages import SlotCommand


@dataclass
class Decision:
    """What to write down first and what to tell slots then."""

    records: list[Record] = field(default_factory=list)
    commands: list[tuple[str, int, SlotCommand]] = field(default_factory=list)


@dataclass
class SlotState:
    """A slot's state: its members, and the number of the command that it waits for."""

    name: str
    place: str  # the machine that it runs on
    execution: Execution | None = None  # what it computes on; None if it did not say
    members: dict[int, ArmTrial] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)  # members that wait at a rung for others
    waits_for: int | None = 0
    evict: tuple[int, ...] = ()
    entering: list[ArmTrial] = field(default_factory=list)  # members that the slot is told of with its next command
    under_way: dict[int, float] = field(default_factory=dict)  # arms that train now, and what that costs at least
    is_retired: bool = False  # its worker is not trusted any more

    @property
    def is_busy(self) -> bool:
        """Whether a member could train."""
        return len(self.members) > len(self.held)

    @property
    def arms(self) -> set[int]:
        """The arms that have members in it."""
        return {trial.arm.index for trial in self.members.values()}

    def remove_member(self, number: int) -> ArmTrial:
        """Let a member leave; the slot is told so with its next command."""
        self.held.discard(number)
        self.evict += (number,)
        trial = self.members.pop(number)
        if trial in self.entering:  # the slot never hears of it
            self.entering.remove(trial)
        return trial
