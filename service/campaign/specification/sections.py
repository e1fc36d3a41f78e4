"""The sections of a specification: the keys a user may write, their types and their defaults.

Each is strict (a number in quotes is no number), refuses keys it does not know and numbers that are not finite. What
depends on other sections or on what is installed is checked in `reading.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from spectune.search_spaces import Space, parse_space
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.search.samplers import SamplerName
from spectune.service.campaign.stopping.rules import RuleName

PRECISIONS = ("fp32", "bf16", "fp64")
ARITHMETICS = (
    "fastest",
    "portable",
)  # `trainers.worker.arithmetic.Arithmetic`, which is not imported here: it needs torch

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"


class Section(BaseModel):
    """A mapping in a specification."""

    model_config = _STRICT


class TaskSection(Section):
    """What is trained and for how long; every other key is an option of the task."""

    model_config = ConfigDict(**{**_STRICT, "extra": "allow"})

    name: str
    steps: int = Field(ge=1, le=10_000_000)

    @property
    def options(self) -> dict[str, Any]:
        """The task's own options."""
        return dict(self.model_extra or {})

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the section with other options."""
        return self.model_validate({"name": self.name, "steps": self.steps, **options})


class ObjectiveSection(Section):
    """What is compared."""

    metric: str
    mode: Mode = "minimize"
    every_steps: int | None = Field(default=None, ge=1)  # report so often; a twentieth of the steps if not given


class ArmSection(Section):
    """One optimizer with what varies and what does not."""

    optimizer: str
    space: dict[str, Any]  # `default` has been replaced by what it stands for
    fixed: dict[str, Any] = {}
    name: str = Field(pattern=_NAME, max_length=60)

    @cached_property
    def search_space(self) -> Space:
        """The space as domains."""
        return parse_space(self.space)


class SearchSection(Section):
    """How each arm is searched; the numbers are per arm."""

    sampler: SamplerName = "random"
    levels: int | None = Field(default=None, ge=2, le=1000)  # values of each real domain in a grid
    points: int = Field(ge=1, le=100_000)
    seeds: int = Field(default=1, ge=1, le=1000)  # trials per point
    search_seed: int = Field(default=0, ge=0)
    deterministic: bool = False  # nothing depends on which trial ends first, at the price of waiting


class ScheduleSection(Section):
    """The learning rate over a trial."""

    shape: str = "constant"
    warmup_fraction: float = 0.0
    decay_fraction: float | None = None
    decay_every: int | None = None
    decay_factor: float | None = None
    final_fraction: float | None = None

    @property
    def given(self) -> Mapping[str, Any]:
        """The options that have a value."""
        return self.model_dump(exclude_none=True)


class StoppingSection(Section):
    """Which trials are stopped early."""

    rule: RuleName = "none"
    min_steps: int | None = Field(default=None, ge=1)  # the first rung; nothing is stopped before
    reduction_factor: int | None = Field(default=None, ge=2)  # 3 if not given
    audit: int = Field(default=0, ge=0, le=1000)  # stopped trials per arm that are run to the end all the same


class FinalsSection(Section):
    """The best points of each arm, run again to the end with seeds that the search has not seen."""

    keep: int = Field(default=1, ge=1, le=100)  # points per arm
    seeds: int = Field(default=8, ge=2, le=1000)  # the same ones for every arm, so that arms are compared in pairs


class BudgetSection(Section):
    """What a campaign may spend in all, finals and audit included; None where there is no limit."""

    wall_seconds: float | None = Field(default=None, gt=0)  # while an attempt runs, not in the queue or paused
    device_seconds: float | None = Field(default=None, gt=0)  # workers' time, redone steps included
    trials: int | None = Field(default=None, ge=1)

    @property
    def is_in_seconds(self) -> bool:
        """Whether there is a limit in seconds, of which arms have equal shares."""
        return self.wall_seconds is not None or self.device_seconds is not None


class InitialPointSection(Section):
    """A point to be tried first: in the arm of this name or, without one, in every arm.

    It has a value for every hyperparameter of the arm's space that counts in it; what is fixed may be left out.
    """

    arm: str | None = None
    config: dict[str, Any]


class ResourcesSection(Section):
    """What a campaign may use."""

    workers: int = Field(default=1, ge=1, le=1024)
    cpus: int = Field(default=1, ge=1, le=1024)  # per worker
    gpus: Annotated[float, Field(ge=0, le=1)] = 0  # per worker, which trains on one or on a part of one
    members: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"  # trials that train together in a worker
