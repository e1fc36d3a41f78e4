"""The numbers of the odd quintic iterations X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X, each once, with source and range.

A step maps every singular value by p(s) = a s + b s³ + c s⁵ and leaves the singular vectors alone. "[l, u] -> [v, w]"
below says where that many steps in exact arithmetic send the singular values of an interval; tests recompute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

Triple: TypeAlias = tuple[float, float, float]

DEFAULT_STEPS: Final = 5
MAX_STEPS: Final = 99  # as torch.optim.Muon

# Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Chosen for its slope at zero, not for
# convergence: 5 steps send [3e-3, 1] -> [0.68, 1.21] and [1e-3, 1] -> [0.47, 1.21]; more steps do not narrow it.
CLASSIC: Final[Triple] = (3.4445, -4.7750, 2.0315)

# Amsel et al. 2025, "The Polar Express" (arXiv 2505.16932), table for singular values in [1e-3, 1], degree 5: greedy
# minimax, row t for the interval that row t - 1 leaves. 5 rows send [1e-3, 1] to within 0.124 of 1, 6 to 1.2e-3,
# 7 to 1.1e-9, 8 to rounding. The last row, which converges by itself, stands for every further step.
POLAR_EXPRESS: Final[tuple[Triple, ...]] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)

# Ibid.: rounding may leave a singular value above the interval, where the next row would amplify it. Every row but the
# table's last is meant for values up to this factor too large, and the start is divided by it. With it 5 rows send
# [1e-3, 1] -> [0.84, 1.13], 6 -> [0.993, 1.002], 7 to within 1.1e-5 of 1.
POLAR_EXPRESS_SAFETY: Final = 1.01

# Ours: greedy minimax for singular values in [3e-3, 1], the best for each number of steps, derived and printed by
# `python -m spectune.optimizers.polar.rebuild_coefficients`. 3 rows send that interval to within 0.65 of 1, 4 to 0.20,
# 5 to 4.9e-3, 6 to 7.5e-8, 7 to rounding; what starts lower arrives lower, 5 rows send [1e-3, 1] -> [0.53, 1.005]. The
# last row stands for every further step. Momenta of a language model reach lower (κ 1e2 to 5e5): on them five rows for
# 1e-3 are never worse than Polar Express', five rows for 3e-3 often are (docs/decisions/0101-minimax-default.md).
MINIMAX_LOWEST: Final = 3e-3
MINIMAX_LOWEST_OF_MOMENTA: Final = 1e-3
MINIMAX: Final[tuple[Triple, ...]] = (
    (8.383673612923157, -24.765905857974516, 18.357081892887585),
    (4.043420433700426, -3.0114049938415306, 0.5695121503191819),
    (3.5055706172439063, -2.6266538356181113, 0.5257194048203241),
    (2.490115939444252, -1.8342750827526682, 0.43683470689542436),
    (1.917776248731451, -1.2967501911246464, 0.37970487539858633),
    (1.875025658732206, -1.2500285094069146, 0.37500285095213604),
    (1.8749998593826165, -1.2499997187652536, 0.3749998593826373),
    (1.875, -1.25, 0.375),
)

# As POLAR_EXPRESS_SAFETY, for every row of MINIMAX but the last: without it an iterate that bfloat16 leaves above the
# interval is amplified. With it 5 rows send [3e-3, 1] -> [0.987, 1.005]. The start is not divided.
MINIMAX_SAFETY: Final = 1.01

# He et al. 2025, "ROOT" (arXiv 2511.20626), constants of the official code, by (min, max) of the shape, for 5 steps.
# Meant for the spectra of momenta of these shapes, not for an interval; none of them converges with more steps. What
# 5 steps do to [1e-2, 1]: 2048² -> [0.77, 3.32] (all but a thin set of values, which escape an unstable fixed point at
# 1.22, end below 1.23), 3072 -> [0.78, 1.20], 8192 -> [0.93, 1.10], 16384 -> [0.88, 1.07].
ROOT_TRIPLES: Final[dict[tuple[int, int], Triple]] = {
    (2048, 2048): (3.4916, -4.8224, 2.1095),
    (2048, 3072): (3.4509, -4.5790, 1.9325),
    (2048, 8192): (2.9794, -3.6674, 1.6207),
    (2048, 16384): (3.1943, -3.8221, 1.5322),
}


def polar_express_triples(steps: int) -> tuple[Triple, ...]:
    """Return the first `steps` rows of Polar Express, made safe, its last row repeated beyond the table."""
    return repeated([*(made_safe(row, POLAR_EXPRESS_SAFETY) for row in POLAR_EXPRESS[:-1]), POLAR_EXPRESS[-1]], steps)


def adanewton_triple(rows: int, columns: int) -> Triple:
    """Look up ROOT's triple for a shape of either orientation; the classic one where none was published."""
    return ROOT_TRIPLES.get((min(rows, columns), max(rows, columns)), CLASSIC)


def repeated(triples: Sequence[Triple], steps: int) -> tuple[Triple, ...]:
    """Return one triple a step: the first ones of a longer list, the last one again after a shorter one."""
    return tuple(triples[min(step, len(triples) - 1)] for step in range(steps))


def made_safe(triple: Triple, safety: float) -> Triple:
    """Return p(s / safety): a row meant for values up to `safety` times too large."""
    a, b, c = triple
    return a / safety, b / safety**3, c / safety**5
