"""The axes of a space as Optuna distributions; the one file here that knows Optuna.

Options are handed over as indices, because Optuna's categories must be scalars. The search space is static: every axis
is asked for in every trial (`study.ask(fixed_distributions=distributions(space))`) and `Space.config` drops what does
not count, since multivariate TPE models only the axes that all trials have in common.
"""

from __future__ import annotations

from typing import assert_never

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from spectune.search_spaces.axes import Axis, OptionAxis, RealAxis, WholeAxis
from spectune.search_spaces.space import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return each axis of a space as the distribution of one Optuna parameter of the same name."""
    return {name: _distribution(axis) for name, axis in space.axes.items()}


def _distribution(axis: Axis) -> BaseDistribution:
    match axis:
        case RealAxis():
            return FloatDistribution(axis.low, axis.high, log=axis.log)
        case WholeAxis():
            return IntDistribution(axis.low, axis.high, log=axis.log)
        case OptionAxis():
            return CategoricalDistribution(tuple(range(len(axis.shares))))
        case _:
            assert_never(axis)
