"""The stopping rules: for each, where it compares trials, how one is made, and what it leaves of the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.stopping.halving import StoppingRule, SuccessiveHalving
from spectune.service.campaign.stopping.hyperband import Hyperband
from spectune.service.campaign.stopping.median import Median

RuleName: TypeAlias = Literal["none", "successive_halving", "hyperband", "median"]


@dataclass(frozen=True)
class RuleSetting:
    """What a rule is made for.

    Attributes:
        min_steps: Nothing is stopped before.
        factor: One of so many goes on at a rung; 1 for a rule that takes none.
        every_steps: A trial reports at multiples of it.
        steps: The steps of a whole trial.
        mode: Whether small or large values are better.
        is_deterministic: Whether decisions must not depend on the order of arrival.
        point_of: Returns the index of a trial's point.
    """

    min_steps: int
    factor: int
    every_steps: int
    steps: int
    mode: Mode = "minimize"
    is_deterministic: bool = False
    point_of: Callable[[int], int] = lambda trial: trial


@dataclass(frozen=True)
class RuleEntry:
    """A stopping rule.

    Attributes:
        takes_factor: Whether `reduction_factor` is an option of it.
        rungs: Returns the steps at which trials are compared, all before the end.
        make: Makes the rule of one arm, from its rungs.
        expected_steps: Returns the steps of a trial on average, from rungs of which there is at least one.
    """

    takes_factor: bool
    rungs: Callable[[RuleSetting], tuple[int, ...]]
    make: Callable[[Sequence[int], RuleSetting], StoppingRule]
    expected_steps: Callable[[Sequence[int], RuleSetting], float]


def _powers(setting: RuleSetting) -> tuple[int, ...]:
    """Return min_steps times the powers of the factor."""
    rungs, rung = [], setting.min_steps
    while rung < setting.steps:
        rungs.append(rung)
        rung *= setting.factor
    return tuple(rungs)


def _reports(setting: RuleSetting) -> tuple[int, ...]:
    """Return every report from min_steps on."""
    every = setting.every_steps
    return tuple(step for step in range(every, setting.steps, every) if step >= setting.min_steps)


def _halving(rungs: Sequence[int], setting: RuleSetting) -> StoppingRule:
    return SuccessiveHalving(
        rungs, reduction_factor=setting.factor, mode=setting.mode, deterministic=setting.is_deterministic
    )


def _hyperband(rungs: Sequence[int], setting: RuleSetting) -> StoppingRule:
    return Hyperband(
        rungs,
        reduction_factor=setting.factor,
        point_of=setting.point_of,
        mode=setting.mode,
        deterministic=setting.is_deterministic,
    )


def _median(rungs: Sequence[int], setting: RuleSetting) -> StoppingRule:
    return Median(rungs, mode=setting.mode, deterministic=setting.is_deterministic)


def _halved(rungs: Sequence[int], setting: RuleSetting) -> float:
    """Return the steps of a trial on average, if one of `factor` goes on at each rung."""
    ends = (*rungs, setting.steps)
    stretches = (end - begin for begin, end in zip((0, *ends), ends, strict=False))
    return sum(stretch / float(setting.factor**number) for number, stretch in enumerate(stretches))


def _halved_in_brackets(rungs: Sequence[int], setting: RuleSetting) -> float:
    brackets = [rungs[start:] for start in range(len(rungs) + 1)]
    return sum(_halved(bracket, setting) for bracket in brackets) / len(brackets)


def _half_of_the_way(rungs: Sequence[int], setting: RuleSetting) -> float:
    """Return the steps if half are stopped over the whole way: half of it is left on average behind the first rung."""
    return (rungs[0] + setting.steps) / 2


RULES: Final[Mapping[str, RuleEntry]] = {
    "successive_halving": RuleEntry(True, _powers, _halving, _halved),
    "hyperband": RuleEntry(True, _powers, _hyperband, _halved_in_brackets),
    "median": RuleEntry(False, _reports, _median, _half_of_the_way),
}
"""All rules but `none`, by name."""


@dataclass(frozen=True)
class ChosenRule:
    """A stopping rule for the trials of one campaign."""

    entry: RuleEntry
    setting: RuleSetting

    def rungs(self) -> tuple[int, ...]:
        """Return the steps at which trials are compared, all before the end."""
        return self.entry.rungs(self.setting)

    def make(self) -> StoppingRule:
        """Make the rule of one arm."""
        return self.entry.make(self.rungs(), self.setting)

    def expected_steps(self) -> float:
        """Return the steps of a trial of the search on average."""
        rungs = self.rungs()
        return self.entry.expected_steps(rungs, self.setting) if rungs else float(self.setting.steps)
