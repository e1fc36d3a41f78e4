"""Names and numbers."""

from __future__ import annotations

import itertools

import pytest

from spectune.service.campaign.model import naming


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Root percentile", "root-percentile-3f9a"),
        ("  Größe: x/y  ", "grosse-x-y-3f9a"),
        ("../../etc", "etc-3f9a"),
        ("日本", "campaign-3f9a"),
        ("a" * 300, "a" * 60 + "-3f9a"),
        ("a" * 59 + " b", "a" * 59 + "-3f9a"),
    ],
)
def test_a_campaigns_id_is_a_slug_and_a_suffix(name: str, expected: str) -> None:
    assert naming.campaign_id(name, suffix="3f9a") == expected


def test_runs_and_folders_carry_the_trials_number() -> None:
    assert naming.run_name("root", 17) == "root/00017"


def test_trial_numbers_are_dense_unique_and_grow_with_the_points_of_each_arm() -> None:
    places = list(itertools.product(range(4), range(3), range(2)))
    numbers = [
        naming.trial_number(point=point, arm=arm, seed_index=seed, num_arms=3, seeds=2) for point, arm, seed in places
    ]
    assert numbers == list(range(24))
    assert [naming.point_index(number, num_arms=3, seeds=2) for number in numbers] == [point for point, _, _ in places]
