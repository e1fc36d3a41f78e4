"""Spares a worker torch's compiler, which an optimizer's first parameter group would load: two seconds of a processor.

`torch.optim.Optimizer` lets four of its methods never be compiled, and loads the compiler to say so when one of them
is first called. Here they are marked beforehand as what they are when nothing is compiled: themselves. A task that
compiles its own loss loads the compiler with it; these methods are called outside of what it compiles.
"""

from __future__ import annotations

from torch.optim import Optimizer

_MARK = "__dynamo_disable"  # where torch 2.13 keeps what it made of a method; where it does not, nothing changes
_METHODS = (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict)


def leave_compiler_unloaded() -> None:
    """Let optimizers of this process be made without the compiler."""
    for method in _METHODS:
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, _MARK):
            setattr(plain, _MARK, plain)
