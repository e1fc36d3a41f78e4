"""`torch._foreach_*` with numbers, as the loop over the tensors would have it.

On a CPU `torch._foreach_mul_` rounds a number to the dtype of the tensors first: in bfloat16 a decay of 1 - .02 · .1
becomes .996. A tensor's own `mul_` takes it in float32. Of torch 2.13's other calls that a step makes (`lerp`, `add`,
`sub` with `alpha`) none rounds a number; the tests hold each against its loop in every dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def multiply_(tensors: list[Tensor], value: float | Tensor) -> None:
    """Multiply tensors by one number, in place: bit for bit what `tensor.mul_(value)` does to each."""
    if has_half_on_cpu(tensors):
        for tensor in tensors:
            tensor.mul_(value)
    else:
        torch._foreach_mul_(tensors, value)


def has_half_on_cpu(tensors: Sequence[Tensor]) -> bool:
    """Return whether some of the tensors are in half precision on a CPU, so that numbers need the loop."""
    return any(tensor.dtype.itemsize == 2 and tensor.device.type == "cpu" for tensor in tensors)
