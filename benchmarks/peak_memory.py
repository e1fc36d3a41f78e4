"""How many bytes torch allocates at most while something runs, beyond what it holds before.

On a CPU nothing in torch counts them, and what the operating system tells of a process moves by whole pages and by what
`malloc` keeps; so every allocation is recorded by torch's profiler and added up in order.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], Any], device: str) -> int:
    """Run something and give the most bytes it held at once, in tensors that it made itself."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    gc.collect()  # or what earlier work left behind may be freed meanwhile, and is taken off
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    recorder: Any = recorded.profiler
    events = [each for each in recorder.kineto_results.events() if each.name() == "[memory]"]
    changes = [each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]
    return max(accumulate(changes), default=0)
