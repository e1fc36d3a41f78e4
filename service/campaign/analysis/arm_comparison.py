"""Is one arm better than another? Paired t tests over the seeds that both finals share.

Trials with the same seed index start from the same parameters and see the same data, so the differences
d_s = a_s - b_s vary much less than the values. With n common seeds, mean m and standard deviation s of d,

    t = m sqrt(n) / s,    p from Student's t with n - 1 degrees of freedom,

and over all pairs of arms the p are corrected by Holm's method (1979): the k-th smallest of q times q - k + 1, never
below the one before. Better means a corrected p below 0.05.

What could have been shown: a difference is found with probability 0.8, by the strictest of Holm's q tests, if it is at
least (t_{n-1}(1 - 0.05 / 2q) + t_{n-1}(0.8)) s / sqrt(n); the same formula solved for n gives the seeds that the
observed difference would need. Both take s for the truth, so they are estimates.

The test asks about means and trusts differences to be roughly normal. Where single seeds lie decades apart, one of them
decides both m and s; how often either arm was ahead is told beside it, so that a reader sees that.

All of it is about two tuned configurations. That one optimizer is easier to tune takes several search seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from spectune.service.campaign.model.outcomes import Mode

LEVEL = 0.05
POWER = 0.8
_MOST_SEEDS = 10_000  # beyond it a difference counts as out of reach


@dataclass(frozen=True)
class ArmComparison:
    """What the finals say about two arms.

    Attributes:
        arms: Their indices.
        num_seeds: How many seeds both have completed.
        difference: Mean of the first's values minus the second's; None with fewer than two common seeds.
        num_wins: On how many of them the first arm's value is the better one.
        p_value: Of the paired t test, corrected by Holm; None likewise.
        better: The index of the better arm; None where they cannot be told apart.
        detectable: The smallest difference that so many seeds would probably have shown; None likewise.
        seeds_needed: How many seeds the observed difference would take; None where more than 10 000.
    """

    arms: tuple[int, int]
    num_seeds: int
    difference: float | None
    num_wins: int
    p_value: float | None
    better: int | None
    detectable: float | None
    seeds_needed: int | None


def verdicts(finals: Mapping[int, Mapping[int, float]], *, mode: Mode) -> list[ArmComparison]:
    """Compare all pairs of arms.

    Args:
        finals: For each arm, the final value of each seed of its finals that completed.
        mode: Whether small or large values are better.
    """
    pairs = list(combinations(sorted(finals), 2))
    differences = {pair: _differences(finals[pair[0]], finals[pair[1]]) for pair in pairs}
    tested = [pair for pair in pairs if len(differences[pair]) > 1]
    corrected = dict(zip(tested, holm([paired_p(differences[pair]) for pair in tested]), strict=True))
    return [_verdict(pair, differences[pair], corrected.get(pair), len(tested), mode) for pair in pairs]


def paired_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of a t test that the mean of at least two differences is zero."""
    mean, spread = fmean(differences), stdev(differences)
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.special import stdtr  # a third of a second of imports, which the start of a campaign need not wait for

    num = len(differences)
    return float(2 * stdtr(num - 1, -abs(mean) * math.sqrt(num) / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, in the order given."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = least
    return corrected


def interval_half_width(spread: float, *, num_seeds: int) -> float:
    """Return half the width of the 95 % interval of a mean, t_{n-1}(0.975) s / sqrt(n).

    Args:
        spread: Sample standard deviation of the values.
        num_seeds: At least 2.
    """
    return _t_quantile(num_seeds - 1, 1 - LEVEL / 2) * spread / math.sqrt(num_seeds)


def detectable_difference(spread: float, *, num_seeds: int, num_tests: int = 1) -> float:
    """Return the smallest difference that a paired test would find with probability 0.8.

    Args:
        spread: Standard deviation of the differences.
        num_seeds: At least 2.
        num_tests: Pairs tested at once.
    """
    degrees = num_seeds - 1
    quantiles = _t_quantile(degrees, 1 - LEVEL / (2 * num_tests)) + _t_quantile(degrees, POWER)
    return quantiles * spread / math.sqrt(num_seeds)


def _t_quantile(degrees: int, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def seeds_needed(difference: float, spread: float, *, num_tests: int = 1) -> int | None:
    """Return the fewest seeds that find a difference with probability 0.8; None for more than 10 000."""
    low, high = 2, _MOST_SEEDS
    if difference == 0 or detectable_difference(spread, num_seeds=high, num_tests=num_tests) > abs(difference):
        return None
    while low < high:  # what can be detected shrinks as seeds grow
        middle = (low + high) // 2
        if detectable_difference(spread, num_seeds=middle, num_tests=num_tests) <= abs(difference):
            high = middle
        else:
            low = middle + 1
    return low


def _differences(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def _verdict(
    arms: tuple[int, int], differences: Sequence[float], p_value: float | None, num_tests: int, mode: Mode
) -> ArmComparison:
    num_wins = sum((each < 0) if mode == "minimize" else (each > 0) for each in differences)
    if p_value is None:
        return ArmComparison(arms, len(differences), None, num_wins, None, None, None, None)
    mean, spread = fmean(differences), stdev(differences)
    first_is_better = (mean < 0) == (mode == "minimize")
    return ArmComparison(
        arms=arms,
        num_seeds=len(differences),
        difference=mean,
        num_wins=num_wins,
        p_value=p_value,
        better=None if p_value >= LEVEL else arms[0 if first_is_better else 1],
        detectable=detectable_difference(spread, num_seeds=len(differences), num_tests=num_tests),
        seeds_needed=seeds_needed(mean, spread, num_tests=num_tests),
    )
