"""Lets products of matrices give a trial the same bits in any batch, so that who trains beside it makes no difference.

MKL chooses among kernels by the whole shape: of a hundred products whose rows belong to several trials, seven to
thirty-six differ in their last bits from the same rows alone. Its strict mode does not, for one family of instructions,
which is named when MKL computes for the first time. It is the widest that the processor has: in the narrower one large
products take almost twice as long (docs/decisions/0205).
"""

from __future__ import annotations

import os

import torch

_FAMILIES = {"AVX512": "AVX512,STRICT", "AVX2": "AVX2,STRICT"}


def pin_products() -> None:
    """Pin this process's products; what the environment says already stays, and after the first product it is too late.

    Where torch finds neither family nothing is pinned, and other libraries than MKL take no notice.
    """
    family = _FAMILIES.get(torch.backends.cpu.get_cpu_capability())
    if family is not None:
        os.environ.setdefault("MKL_CBWR", family)
