"""Reading the arms of a specification: optimizers, their search spaces and fixed hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectune.search_spaces import DEFAULT_SPACES, Space, SpaceError, default_space, parse_space
from spectune.search_spaces.json_values import is_number, json_pointer
from spectune.service.campaign.specification.catalog import Catalog, HyperparameterDescription
from spectune.service.campaign.specification.problem_list import ProblemList
from spectune.service.campaign.specification.sections import ArmSection

_MOST_ARMS = 64
_EXCLUSIVE = ("adamw_lr", "adamw_lr_ratio")  # the same rate, absolute and relative to lr
_DECAYS = (("lr", "weight_decay"), ("adamw_lr", "adamw_weight_decay"))


def read_arms(document: Any, *, preset: str, catalog: Catalog, found: ProblemList) -> list[ArmSection | None]:
    """Read all arms; None for one that cannot be read.

    `preset` names the task's preset, empty where it has none. With `space: default` the hyperparameters in `fixed` are
    taken out of the default space; in a space that is written out, one that is fixed besides is a mistake.
    """
    if not isinstance(document, list | tuple) or not document:
        found.add("/arms", "a list of at least one arm is needed", document)
        return []
    if len(document) > _MOST_ARMS:
        found.add("/arms", f"at most {_MOST_ARMS} arms are taken", len(document))
        return []
    arms = [
        _read_arm(_filled(each, preset), json_pointer("arms", index), catalog, found)
        for index, each in enumerate(document)
    ]
    names: set[str] = set()
    for index, arm in enumerate(arms):
        if arm is not None and arm.name in names:
            found.add(json_pointer("arms", index, "name"), "another arm has this name", arm.name)
        names |= {arm.name} if arm is not None else set()
    return arms


def _read_arm(document: Any, pointer: str, catalog: Catalog, found: ProblemList) -> ArmSection | None:
    section = found.read(ArmSection, document, pointer)
    if section is None:
        return None
    if section.optimizer not in catalog.optimizers:
        found.add_unknown(pointer + "/optimizer", "optimizer", section.optimizer, catalog.optimizers)
        return None
    return _ArmChecks(section, pointer, catalog.optimizers[section.optimizer], found).run()


def _filled(document: Any, preset: str) -> Any:
    """Put in what depends on an arm's optimizer and the task's preset: its name and its default space."""
    if not isinstance(document, Mapping) or not isinstance(document.get("optimizer"), str):
        return document
    optimizer = document["optimizer"]
    filled = {"space": "default", **document}
    if filled.get("name") is None:
        filled["name"] = optimizer
    if filled["space"] == "default" and optimizer in DEFAULT_SPACES:
        fixed = document.get("fixed")
        taken_out = fixed if isinstance(fixed, Mapping) else {}
        filled["space"] = {
            name: domain
            for name, domain in default_space(optimizer, preset).document().items()
            if name not in taken_out
        }
    elif filled["space"] == "default":
        filled["space"] = {}  # an unknown optimizer, told as such
    return filled


class _ArmChecks:
    def __init__(
        self,
        arm: ArmSection,
        pointer: str,
        hyperparameters: Mapping[str, HyperparameterDescription],
        found: ProblemList,
    ) -> None:
        self._arm = arm
        self._pointer = pointer
        self._hyperparameters = hyperparameters
        self._found = found

    def run(self) -> ArmSection | None:
        space = self._space()
        self._check_fixed()
        if space is None:
            return None
        self._check_space(space)
        self._check_exclusive(space)
        for lr, decay in _DECAYS:
            self._check_decay(space, lr, decay)
        return self._arm

    def _space(self) -> Space | None:
        try:
            return parse_space(self._arm.space)
        except SpaceError as error:
            for problem in error.problems:
                self._found.add(self._pointer + "/space" + problem.pointer, problem.message, problem.value)
            return None

    def _check_fixed(self) -> None:
        for name, value in self._arm.fixed.items():
            place = self._place("fixed", name)
            if self._is_known(place, name) and name in self._arm.space:
                self._found.add(place, "in the search space and fixed at once", value)
            elif name in self._hyperparameters and (problem := self._hyperparameters[name].problem_with(value)):
                self._found.add(place, problem, value)

    def _check_space(self, space: Space) -> None:
        for name, domain in space.items():
            if not self._is_known(self._place("space", name), name):
                continue
            for value in domain.extremes():
                if problem := self._hyperparameters[name].problem_with(value):
                    self._found.add(self._place("space", name, next(iter(domain.document()))), problem, value)

    def _check_exclusive(self, space: Space) -> None:
        absolute, relative = _EXCLUSIVE
        if self._place_of(space, absolute) and self._place_of(space, relative):
            given = self._arm.space.get(absolute, self._arm.fixed.get(absolute))
            self._found.add(self._place_of(space, absolute), f"cannot be given together with {relative}", given)

    def _check_decay(self, space: Space, lr: str, decay: str) -> None:
        """Refuse lr * weight_decay >= 1, where decay would flip the signs of the weights."""
        highest_lr, highest_decay = self._highest(space, lr), self._highest(space, decay)
        if highest_lr * highest_decay >= 1:
            place = self._place_of(space, lr) or self._place_of(space, decay) or self._pointer
            message = (
                f"{lr} * {decay} must stay below 1, or decay flips the signs of the weights; "
                f"the highest {lr} is {highest_lr:g} and the highest {decay}"
            )
            self._found.add(place, message, highest_decay)

    def _highest(self, space: Space, name: str) -> float:
        """Return the highest value a hyperparameter can take; 0 where it is not a number or not there."""
        if name in space:
            values = space[name].extremes()
        elif name in self._arm.fixed:
            values = (self._arm.fixed[name],)
        else:
            values = (self._hyperparameters[name].default,) if name in self._hyperparameters else ()
        return max((value for value in values if is_number(value)), default=0.0)

    def _is_known(self, place: str, name: str) -> bool:
        if name in self._hyperparameters:
            return True
        self._found.add_unknown(place, f"hyperparameter of {self._arm.optimizer}", name, self._hyperparameters)
        return False

    def _place_of(self, space: Space, name: str) -> str:
        """Return the pointer to where a hyperparameter is given; empty where it is not."""
        if name in space:
            return self._place("space", name)
        return self._place("fixed", name) if name in self._arm.fixed else ""

    def _place(self, *keys: str) -> str:
        return self._pointer + json_pointer(*keys)
