"""Outlier suppression by ROOT: what exceeds a percentile of the magnitudes is cut down to it.

    ε = quantile_q(|V|)        O = sign(V) max(|V| − ε, 0)        B = V − O = clip(V, −ε, ε)

One threshold per matrix and step (He et al., arXiv 2511.20626, official code, which adds 1e-9 to it; we do not). So the
outliers O are not zeroed but clamped, and always about a share 1 − q of the entries is, heavy tails or not.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.scratch import may_be_scratch, scratch
from spectune.optimizers.spelling import refuse_unknown

# `sampled` reads about an eighth of the entries, within these bounds. Of s independent draws the rank of the q-quantile
# has a standard deviation of sqrt(q (1 − q) / s), so far is the share that is clipped from 1 − q: at q = 0.9 that is
# 0.015 for s = 384 and 0.0047 for s = 4096; at its largest, q = 0.5, 0.026 and 0.0078.
FEWEST_SAMPLES: Final = 384
MOST_SAMPLES: Final = 4096
QUANTILES: Final = ("exact", "sampled")


def suppress_outliers(
    matrix: Tensor, *, percentile: float | Tensor, quantile: str = "exact", out: Tensor | None = None
) -> Tensor:
    """Clip each matrix of [..., rows, columns] at a percentile of its own magnitudes.

    Args:
        matrix: Any floating point dtype.
        percentile: In (0, 1], or a tensor of such that broadcasts over the leading dimensions as [..., 1, 1]. At 1 the
            result equals `matrix`, bit for bit.
        quantile: As for `percentile_threshold`.
        out: Receives the result and is returned. It may be `matrix`.

    Returns:
        A new tensor or `out`; `matrix` itself where the percentile is the number 1 without an `out`. A matrix whose
        threshold is zero (most entries are zero) is left as it is, which `diagnostics.clipped_fraction` reports as 0;
        one with a non-finite entry becomes NaN as a whole, so that no infinite entry is cut down to a harmless one.

    Raises:
        ValueError: The percentile is not in (0, 1].
    """
    if not isinstance(percentile, Tensor) and percentile == 1:
        return matrix if out is None or out is matrix else out.copy_(matrix)
    if matrix.numel() == 0:
        return matrix.clone() if out is None else out
    return clip_outliers(matrix, percentile_threshold(matrix, percentile=percentile, quantile=quantile), out=out)


def percentile_threshold(matrix: Tensor, *, percentile: float | Tensor, quantile: str = "exact") -> Tensor:
    """Return the percentile of |entries| of each matrix, between neighbouring ranks by linear interpolation.

    Args:
        matrix: Shape [..., rows, columns].
        percentile: As for `suppress_outliers`.
        quantile: `exact`, or `sampled` from about `sample_size` entries at fixed places, the same at every step and in
            every batch, of which the one nearest to the rank is taken: where entries do not follow their place the
            share that is clipped is off by a standard deviation of sqrt(q (1 − q) / s) for s entries. Fewer than twice
            that many are all read, so small matrices are exact; a percentile of 1 is the largest of all entries.

    Returns:
        Shape [..., 1, 1]; NaN for a matrix with a non-finite entry.

    Raises:
        ValueError: The percentile is not in (0, 1], or the quantile is unknown.
    """
    check_percentile(percentile)
    refuse_unknown("quantile", quantile, QUANTILES)
    entries = matrix.flatten(start_dim=-2)
    stride = sampling_stride(*matrix.shape[-2:]) if quantile == "sampled" else 1
    read = entries[..., ::stride]
    memory = scratch(read.shape, "outliers.magnitudes", like=matrix) if may_be_scratch(matrix) else None
    magnitudes = torch.abs(read, out=memory)
    if stride == 1:
        threshold, largest = _threshold(magnitudes, percentile, interpolate=True)
    else:
        largest = torch.maximum(entries.amax(dim=-1, keepdim=True), -entries.amin(dim=-1, keepdim=True))
        threshold, _ = _threshold(magnitudes, percentile, interpolate=False, largest=largest)
    return threshold.add(largest, alpha=0).unsqueeze(-1)  # 0 · ∞ is NaN


def sample_size(rows: int, columns: int) -> int:
    """Return about how many entries of a matrix `sampled` reads; never fewer, and less than four times as many."""
    return min(max(rows * columns // 8, FEWEST_SAMPLES), MOST_SAMPLES)


def sampling_stride(rows: int, columns: int) -> int:
    """Return the distance between entries that `sampled` reads, row by row: prime to the columns, so it meets all."""
    stride = max(1, rows * columns // sample_size(rows, columns))
    while math.gcd(stride, columns) > 1:
        stride -= 1
    return stride


def clip_outliers(matrix: Tensor, threshold: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Clip to [−threshold, threshold]; a threshold of zero means none, and NaN gives NaN."""
    limit = torch.where(threshold == 0, torch.inf, threshold)
    out = torch.maximum(matrix, -limit, out=out)
    return torch.minimum(out, limit, out=out)  # on a CPU several times faster than clamp with tensors


def soft_threshold(matrix: Tensor, threshold: Tensor) -> Tensor:
    """Return the outliers, sign(V) max(|V| − ε, 0): what `clip_outliers` takes away where ε > 0."""
    return matrix.sign() * (matrix.abs() - threshold).clamp(min=0)


def check_percentile(percentile: float | Tensor) -> None:
    """Refuse what is not a fraction; a tensor on another device than the CPU is taken as it is, unread.

    Raises:
        ValueError: The percentile, or an entry of it, is not in (0, 1].
    """
    if not isinstance(percentile, Tensor):
        values = [float(percentile)]
    else:
        values = percentile.flatten().tolist() if percentile.device.type == "cpu" else []
    for value in values:
        problem = percentile_problem(value)
        if problem is not None:
            raise ValueError(f"percentile {problem}: got {value:g}")


def percentile_problem(value: float) -> str | None:
    """Return what is wrong with a percentile; None where nothing is."""
    if 0 < value <= 1:
        return None
    if 1 < value <= 100:
        return f"is a fraction of 1, did you mean {value / 100:.2f}?"
    return "must lie in (0, 1]"


def _threshold(
    magnitudes: Tensor, percentile: float | Tensor, *, interpolate: bool, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the percentile, and the largest magnitude: `largest` where it is known already."""
    if not isinstance(percentile, Tensor) and percentile != 1:
        rank = percentile * (magnitudes.shape[-1] - 1)
        return _at_rank(magnitudes, rank if interpolate else round(rank), largest)
    largest = magnitudes.amax(dim=-1, keepdim=True) if largest is None else largest
    if not isinstance(percentile, Tensor):
        return largest, largest
    own = percentile.to(magnitudes.device).squeeze(-1)
    return torch.where(own == 1, largest, _at_rank_of_each(magnitudes, own, interpolate)), largest


def _at_rank(magnitudes: Tensor, rank: float, largest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Select the shorter side, and on it two neighbouring ranks: half the time of a kthvalue for each of them.

    The side from above holds the largest, NaN included. `torch.quantile` sorts, is many times slower and refuses 2²⁴
    entries.
    """
    below, above = math.floor(rank), math.ceil(rank)
    from_above = 2 * below >= magnitudes.shape[-1]
    count = magnitudes.shape[-1] - below if from_above else above + 1
    side = magnitudes.topk(count, dim=-1, largest=from_above, sorted=False).values
    if largest is None:
        largest = (side if from_above else magnitudes).amax(dim=-1, keepdim=True)
    if below == above:
        return (side.amin(dim=-1, keepdim=True) if from_above else side.amax(dim=-1, keepdim=True)), largest
    neighbours: Tensor = side.topk(2, dim=-1, largest=not from_above).values
    first, second = neighbours[..., :1], neighbours[..., 1:]
    return (first.lerp(second, rank - below) if from_above else second.lerp(first, rank - below)), largest


def _at_rank_of_each(magnitudes: Tensor, percentile: Tensor, interpolate: bool) -> Tensor:
    """Sort once and read two neighbouring ranks of every matrix."""
    ordered = magnitudes.sort(dim=-1).values
    rank = (percentile.to(torch.float64) * (magnitudes.shape[-1] - 1)).broadcast_to(*ordered.shape[:-1], 1)
    rank = rank if interpolate else rank.round()
    below = rank.floor()
    lower = ordered.gather(-1, below.long())
    upper = ordered.gather(-1, rank.ceil().long())
    return lower.lerp(upper, (rank - below).to(ordered.dtype))
