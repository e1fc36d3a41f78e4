"""What the process's switches do to products, and the ways around them: promised accuracy does not depend on a switch.

    autocast          rounds the factors of a product: switched off, for this thread alone, at the door
    float32 products  `torch.set_float32_matmul_precision("medium")` and `torch.backends.*.fp32_precision` let them lose
                      digits (bfloat16 on a CPU, TF32 on CUDA): then they are taken in float64, which no switch touches

The switches themselves belong to the process and its other threads: they are read, never set. With torch's own settings
nothing here changes a dtype.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

EXACT: Final = ("none", "ieee")


def exact_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype whose products keep the digits of `dtype` on a device: itself, or float64 for a cut float32."""
    backend = {"cpu": "mkldnn", "cuda": "cuda"}.get(device.type)
    if dtype != torch.float32 or backend is None:
        return dtype
    return dtype if _precision_of_products(backend) in EXACT else torch.float64


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which this thread computes in the dtypes that it is given."""
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _precision_of_products(backend: str) -> str:
    return torch._C._get_fp32_precision_getter(backend, "matmul")


# What `torch.compiler.assume_constant_result` does, without loading the compiler: read when a step is compiled.
_precision_of_products._dynamo_marked_constant = True  # type: ignore[attr-defined]
