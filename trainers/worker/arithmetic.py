"""The arithmetic of a worker's processor: the instructions that its numerical libraries use, and the bits they give.

A trial's last digits depend on the instructions that MKL, oneDNN and torch's own kernels choose, and a bfloat16 or a
chaotic trial carries them into its second digit. Two choices:

fastest   the widest instructions of each worker's own processor. MKL chooses among kernels by the whole shape of a
          product: of a hundred products whose rows belong to several trials, seven to thirty-six differ in their last
          bits from the same rows alone. Its strict mode does not, for one family of instructions, so a trial has the
          same bits whatever trains beside it (docs/decisions/0205).
portable  AVX2 in every library, so that every x86-64 processor with AVX2 gives the same bits; large products take up
          to twice as long (docs/decisions/0207).

Libraries read these variables when they compute for the first time; later changes have no effect.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch


class Arithmetic(StrEnum):
    """Which instructions the processors of a campaign use."""

    FASTEST = "fastest"
    PORTABLE = "portable"


class UnavailableArithmeticError(Exception):
    """This process cannot compute as the campaign demands."""


_STRICT_PRODUCTS: Final = {"AVX512": "AVX512,STRICT", "AVX2": "AVX2,STRICT"}
PORTABLE_INSTRUCTIONS: Final = "AVX2"

PORTABLE_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
        "MKL_CBWR": "AVX2,STRICT",  # torch's products, and MKL's vector functions
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's products in bfloat16, and convolutions
    }
)
"""What torch reads; may be set after `import torch`, before the first computation."""


@dataclass(frozen=True)
class Execution:
    """On what a trial was computed, as far as its last digits depend on it.

    Attributes:
        device: The name of the processor or GPU.
        instructions: The family that torch's kernels use, such as AVX2 or AVX512; empty on a GPU.
        threads: How many threads share a computation.
    """

    device: str
    instructions: str
    threads: int

    def document(self) -> dict[str, Any]:
        """Return the execution as JSON values."""
        return asdict(self)


def pin_arithmetic(arithmetic: Arithmetic) -> None:
    """Pin the arithmetic of this process before its first computation.

    With `fastest`, a value of MKL_CBWR that the environment holds stays, and on a processor without AVX2 and AVX-512
    nothing is pinned. Libraries other than MKL take no notice of it.

    Raises:
        UnavailableArithmeticError: The processor lacks the instructions of `portable`, or this process has computed
            with others before.
    """
    if arithmetic is Arithmetic.PORTABLE:
        os.environ.update(PORTABLE_VARIABLES)
    actual = torch.backends.cpu.get_cpu_capability()
    if arithmetic is Arithmetic.PORTABLE and actual != PORTABLE_INSTRUCTIONS:
        needed = f"portable arithmetic needs {PORTABLE_INSTRUCTIONS} instructions"
        raise UnavailableArithmeticError(f"{needed}, and this process on {processor_name()} uses others: got {actual}")
    if actual in _STRICT_PRODUCTS:
        os.environ.setdefault("MKL_CBWR", _STRICT_PRODUCTS[actual])


def execution_here(*, threads: int, is_on_gpu: bool = False) -> Execution:
    """Return on what this process computes; call it after `pin_arithmetic`."""
    if is_on_gpu:
        return Execution(torch.cuda.get_device_name(), "", threads)
    return Execution(processor_name(), torch.backends.cpu.get_cpu_capability(), threads)


def processor_name() -> str:
    """Return the name of this machine's processor, or of its architecture if it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.processor() or platform.machine())
