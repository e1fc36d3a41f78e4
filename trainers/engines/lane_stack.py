"""Weights and optimizer states of several trials of one structure, stacked: each trial is a lane.

Parameters of one shape and one optimizer group lie in one tensor [parameters, lanes, ...], so that a stage of the
optimizer takes all of them in one call. A lane can be cut out, joined, and written back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spectune.optimizers import AdamWRule, GradientDescentRule, SpectralOptimizer
from spectune.optimizers.rules.spectral_optimizer import ADAMW

State = dict[str, Tensor]


class Rule(Protocol):
    """What every optimizer of the catalogue is: a state, and how a gradient becomes an update."""

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step."""

    def update(self, gradient: Tensor, state: State, hyperparameters: Mapping[str, Any]) -> tuple[Tensor, State]:
        """Return the update and the new state."""


@dataclass(frozen=True)
class LaneBundle:
    """Parameters of one shape that one rule updates.

    Attributes:
        names: As `named_parameters` gives them.
        places: Where each stands in the optimizer's state dict.
        group: Index of the parameter group.
        rule: The group's.
        shape: Of each parameter.
        state_shapes: Of a parameter's state, by name.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    group: int
    rule: Rule
    shape: torch.Size
    state_shapes: Mapping[str, torch.Size]

    def broadcast(self, vector: Tensor) -> Tensor:
        """Shape one number a lane so that it broadcasts over [parameters, lanes, ...]."""
        return vector.view(1, -1, *[1] * len(self.shape))


def bundles_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[LaneBundle, ...]:
    """Return how the parameters of a model are bundled, from the optimizer that was built for it."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[tuple[int, torch.Size], list[tuple[str, int]]] = {}
    place = 0
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            found.setdefault((index, parameter.shape), []).append((name_of[id(parameter)], place))
            place += 1
    return tuple(_bundle(optimizer, index, shape, members) for (index, shape), members in found.items())


def _bundle(
    optimizer: torch.optim.Optimizer, group: int, shape: torch.Size, members: Sequence[tuple[str, int]]
) -> LaneBundle:
    rule = _rule_of(optimizer, optimizer.param_groups[group])
    shapes = {name: entry.shape for name, entry in rule.initial_state(torch.zeros(shape)).items()}
    names, places = zip(*members, strict=True)
    return LaneBundle(names, places, group, rule, shape, shapes)


def _rule_of(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Rule:
    if isinstance(optimizer, SpectralOptimizer) and group["algorithm"] != ADAMW:
        kind = optimizer.rule_type
        return kind(**{field.name: group[field.name] for field in fields(kind) if field.name in group})
    if isinstance(optimizer, SpectralOptimizer | torch.optim.AdamW):
        return AdamWRule()
    assert isinstance(optimizer, torch.optim.SGD), f"an optimizer without a rule: got {type(optimizer).__name__}"
    return GradientDescentRule()


class LaneStack:
    """The lanes.

    Attributes:
        bundles: How parameters are bundled; equal for all lanes.
        weights: For each bundle, [parameters, lanes, ...].
        states: For each bundle, its rule's state by name, [parameters, lanes, ...] with as many dimensions as weights.
    """

    def __init__(self, bundles: tuple[LaneBundle, ...], weights: list[Tensor], states: list[State]) -> None:
        self.bundles = bundles
        self.weights = weights
        self.states = states

    @classmethod
    def of_model(cls, bundles: tuple[LaneBundle, ...], model: nn.Module) -> LaneStack:
        """Make the stack of one lane that begins with a model's weights."""
        found = dict(model.named_parameters())
        weights = [torch.stack([found[name].detach() for name in bundle.names])[:, None] for bundle in bundles]
        states = [
            {
                name: _lane(torch.stack([entry] * len(bundle.names)), bundle)
                for name, entry in bundle.rule.initial_state(weight[0, 0]).items()
            }
            for bundle, weight in zip(bundles, weights, strict=True)
        ]
        return cls(bundles, weights, states)

    @classmethod
    def joined(cls, stacks: Sequence[LaneStack]) -> LaneStack:
        """Put the lanes of several stacks beside each other."""
        if len(stacks) == 1:
            return stacks[0]
        first = stacks[0]
        weights = [torch.cat(each, dim=1) for each in zip(*(stack.weights for stack in stacks), strict=True)]
        states = [
            {name: torch.cat([state[name] for state in each], dim=1) for name in each[0]}
            for each in zip(*(stack.states for stack in stacks), strict=True)
        ]
        return cls(first.bundles, weights, states)

    @property
    def num_lanes(self) -> int:
        """How many lanes there are."""
        return self.weights[0].shape[1]

    @property
    def num_bytes(self) -> int:
        """What weights and states hold."""
        tensors = [*self.weights, *(entry for state in self.states for entry in state.values())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def select(self, lanes: Sequence[int]) -> LaneStack:
        """Copy some lanes, in this order."""
        index = torch.tensor(lanes, device=self.weights[0].device)
        states = [{name: entry.index_select(1, index) for name, entry in state.items()} for state in self.states]
        return LaneStack(self.bundles, [weight.index_select(1, index) for weight in self.weights], states)

    def write(self, lanes: Sequence[int], other: LaneStack) -> None:
        """Overwrite some lanes with those of another stack."""
        index = torch.tensor(lanes, device=self.weights[0].device)
        for mine, theirs in zip(self.weights, other.weights, strict=True):
            mine.index_copy_(1, index, theirs)
        for state, their_state in zip(self.states, other.states, strict=True):
            for name, entry in state.items():
                entry.index_copy_(1, index, their_state[name])

    def parameters(self) -> dict[str, Tensor]:
        """Return every parameter, [lanes, ...], as a view."""
        return {
            name: weight[index]
            for bundle, weight in zip(self.bundles, self.weights, strict=True)
            for index, name in enumerate(bundle.names)
        }

    def rms(self) -> Tensor:
        """Return the root mean square of all weights of each lane, [lanes]; not finite where one of them is not."""
        norms = [
            torch.linalg.vector_norm(weight.flatten(2) if weight.ndim > 2 else weight[..., None], dim=2)
            for weight in self.weights
        ]
        count = sum(bundle.shape.numel() * len(bundle.names) for bundle in self.bundles)
        roots: Tensor = torch.linalg.vector_norm(torch.cat(norms), dim=0) / count**0.5
        return roots

    # One lane, in the form in which the solo engine keeps it

    def lane_weights(self, lane: int) -> dict[str, Tensor]:
        """Copy one lane's parameters to the CPU."""
        return {name: stack[lane].to("cpu", copy=True) for name, stack in self.parameters().items()}

    def lane_state(self, lane: int) -> dict[int, State]:
        """Copy one lane's optimizer state to the CPU, by place."""
        found: dict[int, State] = {}
        for bundle, state in zip(self.bundles, self.states, strict=True):
            for index, place in enumerate(bundle.places):
                mine = {name: entry[index, lane].to("cpu", copy=True) for name, entry in state.items()}
                found[place] = {name: entry.reshape(bundle.state_shapes[name]) for name, entry in mine.items()}
        return found

    def load_lane(self, lane: int, weights: Mapping[str, Tensor], states: Mapping[int, Mapping[str, Any]]) -> None:
        """Overwrite one lane; a parameter without a state keeps its own."""
        for bundle, weight, state in zip(self.bundles, self.weights, self.states, strict=True):
            for index, (name, place) in enumerate(zip(bundle.names, bundle.places, strict=True)):
                weight[index, lane].copy_(weights[name])
                for key, value in _tensors(states.get(place, {})):
                    state[key][index, lane].copy_(value.reshape(state[key][index, lane].shape))


def _lane(entries: Tensor, bundle: LaneBundle) -> Tensor:
    """Shape states [parameters, ...] of one lane like [parameters, 1, ...], with the dimensions of the weights."""
    missing = 1 + len(bundle.shape) - entries.ndim
    return entries.reshape(entries.shape[0], 1, *[1] * missing, *entries.shape[1:])


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in state.items() if isinstance(value, Tensor))
