"""What the momenta's spectra say of an optimizer, once a report: for it only the directions are taken once more.

    spectral/orthogonality_error   ‖X Xᵀ − I‖_F / sqrt(m) of the direction X: how nearly all singular values are 1
    spectral/update_rms            root mean square of the update, before the learning rate
    spectral/nuclear_norm          ⟨V, X⟩, of the momentum V after clipping
    spectral/clipped_fraction      ROOT alone: the share of the momentum's entries that are clipped

Each is the mean over a trial's matrices. An optimizer without momentum, or whose momentum averages directions, has
none, nor has one without matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from spectune.optimizers import PolarGradRule, RootRule, SpectralRule
from spectune.optimizers.diagnostics import clipped_fraction, nuclear_norm, orthogonality_error, update_rms
from spectune.trainers.engines.lane_rates import LaneRates
from spectune.trainers.engines.lane_stack import LaneStack, Rule, bundles_of

SPECTRAL_METRICS: Final = tuple(
    f"spectral/{name}" for name in ("orthogonality_error", "update_rms", "nuclear_norm", "clipped_fraction")
)
_MOMENTUM: Final = "momentum_buffer"


@torch.no_grad()
def spectra_of_lanes(stack: LaneStack, rates: LaneRates) -> list[dict[str, float]]:
    """Return the numbers of each lane."""
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    for bundle, state in zip(stack.bundles, stack.states, strict=True):
        for name, values in _spectra(bundle.rule, state, rates.hyperparameters(bundle)).items():
            found[name].append(values)  # [parameters, lanes]
    means = {name: torch.cat(values).double().mean(dim=0).cpu().tolist() for name, values in found.items()}
    return [{name: values[lane] for name, values in means.items()} for lane in range(stack.num_lanes)]


@torch.no_grad()
def spectra_of_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the numbers of one trial, matrix by matrix, so that no second copy of a large model is made."""
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    parameters = dict(model.named_parameters())
    for bundle in bundles_of(model, optimizer):
        for name in bundle.names:
            state = optimizer.state.get(parameters[name], {})
            for metric, value in _spectra(bundle.rule, state, optimizer.param_groups[bundle.group]).items():
                found[metric].append(value)
    return {name: float(torch.stack(values).double().mean()) for name, values in found.items()}


def _spectra(rule: Rule, state: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the numbers of momenta [..., rows, columns], each [...]."""
    averages_directions = isinstance(rule, PolarGradRule) and rule.polar_first
    if not isinstance(rule, SpectralRule) or averages_directions or _MOMENTUM not in state:
        return {}
    own = {name: state[name] for name in ("triples",) if name in state}
    momentum = state[_MOMENTUM]
    followed = rule.suppress(momentum, hyperparameters)
    direction = rule.direction(followed, {**hyperparameters, **own})
    length = update_rms(rule.scaled(direction.clone(), followed))  # which may write over it
    numbers = [orthogonality_error(direction), length, nuclear_norm(followed, direction)]
    if isinstance(rule, RootRule):
        numbers.append(clipped_fraction(momentum, percentile=hyperparameters["percentile"]))
    return dict(zip(SPECTRAL_METRICS, numbers, strict=False))
