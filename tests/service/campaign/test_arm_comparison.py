"""Verdicts: paired, corrected, and honest about what could not be seen."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from spectune.service.campaign.analysis.arm_comparison import (
    detectable_difference,
    holm,
    paired_p,
    seeds_needed,
    verdicts,
)


def _finals(num_seeds: int, *, shift: float, noise: float, seed: int = 0) -> dict[int, dict[int, float]]:
    """Return two arms whose values vary much from seed to seed, and their differences little."""
    generator = random.Random(seed)
    common = [generator.gauss(2, 1) for _ in range(num_seeds)]
    first = {index: value + generator.gauss(0, noise) for index, value in enumerate(common)}
    second = {index: value + shift + generator.gauss(0, noise) for index, value in enumerate(common)}
    return {0: first, 1: second}


def test_the_test_is_scipys_paired_one() -> None:
    finals = _finals(8, shift=0.1, noise=0.1)
    expected = stats.ttest_rel(list(finals[0].values()), list(finals[1].values()))
    differences = [finals[0][seed] - finals[1][seed] for seed in range(8)]
    assert paired_p(differences) == pytest.approx(expected.pvalue)
    unpaired = stats.ttest_ind(list(finals[0].values()), list(finals[1].values()))
    assert paired_p(differences) != pytest.approx(unpaired.pvalue)


@pytest.mark.parametrize(("mode", "better"), [("minimize", 0), ("maximize", 1)])
def test_a_small_difference_is_seen_through_common_seeds(mode: str, better: int) -> None:
    (verdict,) = verdicts(_finals(8, shift=0.2, noise=0.03), mode=mode)
    assert verdict.better == better
    assert verdict.num_seeds == 8
    assert verdict.num_wins == (8 if mode == "minimize" else 0)
    assert verdict.difference == pytest.approx(-0.2, abs=0.05)
    assert verdict.p_value is not None
    assert verdict.p_value < 0.001


def test_noise_is_not_a_difference_and_the_verdict_says_what_it_would_take() -> None:
    (verdict,) = verdicts(_finals(8, shift=0.01, noise=0.1), mode="minimize")
    assert verdict.better is None
    assert verdict.detectable is not None
    assert verdict.difference is not None
    assert verdict.detectable > abs(verdict.difference)
    assert verdict.seeds_needed is None or verdict.seeds_needed > 8


def test_between_equal_arms_at_most_one_verdict_in_twenty_finds_a_difference() -> None:
    found = sum(
        verdicts(_finals(8, shift=0.0, noise=0.1, seed=seed), mode="minimize")[0].better is not None
        for seed in range(400)
    )
    assert found / 400 < 0.08


def test_what_is_detectable_is_detected_four_times_in_five() -> None:
    spread = 0.1 * 2**0.5
    shift = detectable_difference(spread, num_seeds=8)
    found = sum(
        verdicts(_finals(8, shift=shift, noise=0.1, seed=seed), mode="minimize")[0].better == 0 for seed in range(400)
    )
    assert found / 400 == pytest.approx(0.8, abs=0.06)


def test_the_seeds_needed_are_the_fewest_that_make_the_difference_detectable() -> None:
    num_seeds = seeds_needed(0.05, 0.1)
    assert num_seeds is not None
    assert detectable_difference(0.1, num_seeds=num_seeds) <= 0.05 < detectable_difference(0.1, num_seeds=num_seeds - 1)
    assert seeds_needed(0.0, 0.1) is None
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(5.0, 1e-9) == 2


def test_holm_corrects_by_the_number_of_tests_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_with_fewer_than_two_common_seeds_are_not_judged_nor_counted() -> None:
    finals = _finals(8, shift=0.2, noise=0.03)
    judged = verdicts(finals | {2: {0: 1.0, 99: 2.0}}, mode="minimize")
    assert [(each.arms, each.num_seeds, each.p_value is None) for each in judged] == [
        ((0, 1), 8, False),
        ((0, 2), 1, True),
        ((1, 2), 1, True),
    ]
    assert judged[0] == verdicts(finals, mode="minimize")[0]


def test_differences_without_spread_are_certain() -> None:
    assert paired_p([0.1, 0.1, 0.1]) == 0.0
    assert paired_p([0.0, 0.0]) == 1.0
