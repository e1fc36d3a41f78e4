"""Which matrices share one batched polar factor, and the memory they are brought together in.

    equal         of one shape
    transposed    of m × n and of n × m: polar(Gᵀ) = polar(G)ᵀ, so the tall ones join as their transposes
    padded        of shapes that nearly agree, with zeros around them: polar([G 0; 0 0]) = [polar(G) 0; 0 0]

Only the direction is taken together: momentum, clipping and scale see each matrix in its own shape. A wider merge means
fewer and larger products, which is time on an accelerator that waits for launches, and copies and flops elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

MERGES: Final = ("equal", "transposed", "padded")
CACHED_ENTRIES: Final = 2**17
"""Entries that elementwise work takes at once on a CPU: 1.25 MB of float32 in, between and half precision out, below
the second cache of a server's core."""

MAX_PADDING: Final = 1.5
"""Entries of the padded matrix for each true one, above which a shape does not join; products then cost at most 2.25
times their flops."""

Shape = tuple[int, int]


def stack_into(stack: Tensor, matrices: list[Tensor]) -> Tensor:
    """Copy matrices into a stack [count, rows, columns] of theirs and give it."""
    return torch.stack(matrices, out=stack)


def in_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield equal tensors piece by piece, flattened, as many entries at once as stay in the cache; small ones whole."""
    if tensors[0].numel() <= CACHED_ENTRIES or not all(tensor.is_contiguous() for tensor in tensors):
        yield tensors
        return
    yield from zip(*(torch.split(tensor.view(-1), CACHED_ENTRIES) for tensor in tensors), strict=True)


def batches(parameters: Sequence[Tensor], *, merge: str, cap: int) -> Iterator[list[list[Tensor]]]:
    """Yield the matrices of each batch, as lists of one shape, dtype and device each.

    Args:
        parameters: Matrices.
        merge: One of `MERGES`.
        cap: Bytes of a batch, padding included, but at least one matrix; 0 takes one matrix at a time.
    """
    alike: defaultdict[tuple[torch.dtype, torch.device], list[tuple[Shape, Tensor]]] = defaultdict(list)
    for parameter in parameters:
        alike[parameter.dtype, parameter.device].append((_shape(parameter), parameter))
    for (dtype, _), matrices in alike.items():
        targets = _targets({shape for shape, _ in matrices}, merge)
        together: defaultdict[Shape, list[tuple[Shape, Tensor]]] = defaultdict(list)
        for shape, matrix in matrices:
            together[targets[shape]].append((shape, matrix))
        for target, members in together.items():
            count = max(1, cap // max(1, target[0] * target[1] * dtype.itemsize))
            for start in range(0, len(members), count):
                yield _by_shape(members[start : start + count])


def wide_shape(stacks: Sequence[Tensor]) -> Shape:
    """Return the wide shape into which the matrices of all stacks fit."""
    shapes = [_wide(_shape(stack)) for stack in stacks]
    return max(rows for rows, _ in shapes), max(columns for _, columns in shapes)


def merged(stacks: Sequence[Tensor], batch: Tensor) -> Tensor:
    """Fill a batch [count, rows, columns] of the wide shape with stacks, transposed and padded, and give it."""
    first = 0
    for stack in stacks:
        rows, columns = _wide(_shape(stack))
        part = batch[first : first + len(stack)]
        part[:, :rows, :columns].copy_(_turned(stack))
        part[:, rows:].zero_()
        part[:, :rows, columns:].zero_()
        first += len(stack)
    return batch


def parted(batch: Tensor, stacks: Sequence[Tensor]) -> list[Tensor]:
    """Undo `merged`: give the part of each stack, in its shape, as views."""
    parts = []
    for stack, part in zip(stacks, torch.split(batch, [len(stack) for stack in stacks]), strict=True):
        rows, columns = _shape(stack)
        parts.append(part[:, :columns, :rows].mT if rows > columns else part[:, :rows, :columns])
    return parts


def _targets(shapes: set[Shape], merge: str) -> dict[Shape, Shape]:
    """Return for each shape the one of its batch."""
    if merge == "equal":
        return {shape: shape for shape in shapes}
    targets: list[Shape] = []
    result = {}
    for shape in sorted(shapes, key=lambda shape: (-shape[0] * shape[1], _wide(shape), shape)):
        wide = _wide(shape)
        fitting = [target for target in targets if _joins(wide, target, merge)]
        if not fitting:
            targets.append(wide)
        result[shape] = min(fitting, key=lambda target: target[0] * target[1], default=wide)
    return result


def _joins(wide: Shape, target: Shape, merge: str) -> bool:
    if merge == "transposed" or 0 in wide:
        return wide == target
    fits = wide[0] <= target[0] and wide[1] <= target[1]
    return fits and target[0] * target[1] <= MAX_PADDING * wide[0] * wide[1]


def _by_shape(matrices: list[tuple[Shape, Tensor]]) -> list[list[Tensor]]:
    same: defaultdict[Shape, list[Tensor]] = defaultdict(list)
    for shape, matrix in matrices:
        same[shape].append(matrix)
    return list(same.values())


def _shape(matrix: Tensor) -> Shape:
    *_, rows, columns = matrix.shape
    return rows, columns


def _wide(shape: Shape) -> Shape:
    return min(shape), max(shape)


def _turned(stack: Tensor) -> Tensor:
    return stack.mT if stack.shape[-2] > stack.shape[-1] else stack
