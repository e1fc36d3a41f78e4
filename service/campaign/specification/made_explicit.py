"""What campaigns do if their document does not say: written into it, so that a class's new default changes no campaign.

The defaults of `optimizers` follow torch.optim and may be improved. A campaign's numbers must not change with them, so
an accepted document names the value of each such hyperparameter, in `fixed` of its arm:

    compute_dtype    what `auto` is for the solver on the campaign's device: never a matter of the processor
    adamw_lr_ratio   0.1, if neither that nor `adamw_lr` is given
    decay_vectors    true: gains and biases decay as everything else that AdamW trains

A document that was accepted before these were written has the same meaning: it is completed when it is read back. If
its solver is `qdwh` or `zolo_pd` alone, it is given the `l0` of that time as well; a new one takes the solver's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from spectune.search_spaces import Space, When
from spectune.service.campaign.specification.sections import ArmSection

DEFAULT_SOLVERS: Final[Mapping[str, str]] = {
    "muon": "newton_schulz",
    "polargrad": "svd",
    "root": "adanewton",
    "spectral_descent": "svd",
}
"""The optimizers for matrices, each with its solver."""

ADAMW_LR_RATIO: Final = 0.1
_TAKE_L0: Final = frozenset({"qdwh", "zolo_pd"})
_STORED_L0: Final = 2e-7
_ON_GPU: Final[Mapping[str, str]] = {
    "newton_schulz": "bfloat16",
    "polar_express": "bfloat16",
    "adanewton": "bfloat16",
    "minimax": "float16",
    "gram": "float16",
    "auto": "float16",
}


def completed_arms(
    arms: Iterable[ArmSection], *, precision: str, on_gpu: bool, are_stored: bool = False
) -> tuple[ArmSection, ...]:
    """Return a campaign's arms with what their document leaves open in `fixed`.

    Args:
        arms: As the document has them.
        precision: The campaign's.
        on_gpu: Whether its workers have GPUs.
        are_stored: Whether they were accepted before, perhaps by an older release.
    """
    return tuple(_completed_arm(arm, precision=precision, on_gpu=on_gpu, is_stored=are_stored) for arm in arms)


def completed_config(optimizer: str, config: Mapping[str, Any], *, precision: str, on_gpu: bool) -> dict[str, Any]:
    """Return a trial's hyperparameters with what they leave open, as a name that counts only beside another's value."""
    solvers = {str(config.get("solver", DEFAULT_SOLVERS.get(optimizer)))}
    return {**config, **_left_open(optimizer, config, solvers, precision=precision, on_gpu=on_gpu)}


def _completed_arm(arm: ArmSection, *, precision: str, on_gpu: bool, is_stored: bool) -> ArmSection:
    solvers = _solvers(arm.optimizer, arm.search_space, arm.fixed)
    added = _left_open(arm.optimizer, {*arm.space, *arm.fixed}, solvers, precision=precision, on_gpu=on_gpu)
    if is_stored and "decay_vectors" in added and "l0" not in {*arm.space, *arm.fixed} and solvers <= _TAKE_L0:
        added["l0"] = _STORED_L0
    return arm.model_copy(update={"fixed": {**arm.fixed, **added}}) if added else arm


def _left_open(
    optimizer: str, given: Collection[str], solvers: Collection[str], *, precision: str, on_gpu: bool
) -> dict[str, Any]:
    if optimizer not in DEFAULT_SOLVERS:
        return {}
    added: dict[str, Any] = {}
    if "adamw_lr" not in given and "adamw_lr_ratio" not in given:
        added["adamw_lr_ratio"] = ADAMW_LR_RATIO
    if "decay_vectors" not in given:
        added["decay_vectors"] = True
    if "compute_dtype" not in given:
        dtypes = {_dtype(solver, precision=precision, on_gpu=on_gpu) for solver in solvers}
        added["compute_dtype"] = dtypes.pop() if len(dtypes) == 1 else "auto"  # on a GPU, if solvers vary
    return added


def _dtype(solver: str, *, precision: str, on_gpu: bool) -> str:
    if precision == "fp64":
        return "float64"
    return _ON_GPU.get(solver, "float32") if on_gpu else "float32"  # bf16 keeps its weights in float32, too


def _solvers(optimizer: str, space: Space, fixed: Mapping[str, Any]) -> set[str]:
    """Return every solver that a point of the arm may have."""
    default = DEFAULT_SOLVERS.get(optimizer, "")
    if "solver" in space:
        domain = space["solver"]
        return {*map(str, domain.extremes()), *([default] if isinstance(domain, When) else [])}
    return {str(fixed.get("solver", default))}
