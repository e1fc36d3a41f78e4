"""The learning rate over a trial."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spectune.trainers.schedules import Schedule, ScheduleOptionError


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


def test_constant_is_one_throughout() -> None:
    assert factors(Schedule(), 5) == [1.0] * 5


def test_warm_up_rises_linearly_and_never_starts_at_zero() -> None:
    assert factors(Schedule("constant", warmup_fraction=0.4), 10)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_starts_at_one_is_half_way_in_the_middle_and_tends_to_its_final_fraction() -> None:
    schedule = Schedule("cosine", final_fraction=0.1)
    assert schedule.factor(0, 100) == 1.0
    assert schedule.factor(50, 100) == pytest.approx(0.55)
    assert schedule.factor(99, 100) == pytest.approx(0.1 + 0.9 * (1 + math.cos(0.99 * math.pi)) / 2)


def test_linear_falls_by_the_same_amount_each_step() -> None:
    assert factors(Schedule("linear"), 4) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_linear_falls_from_the_end_of_warm_up() -> None:
    assert factors(Schedule("linear", warmup_fraction=0.5), 8) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    )


def test_wsd_is_flat_until_its_decay_begins() -> None:
    schedule = Schedule("wsd", warmup_fraction=0.2, decay_fraction=0.4)
    assert factors(schedule, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_wsd_decays_over_three_tenths_if_nothing_is_said() -> None:
    assert factors(Schedule("wsd"), 10) == factors(Schedule("wsd", decay_fraction=0.3, final_fraction=0.0), 10)


def test_step_drops_every_so_many_steps_as_in_polargrad() -> None:
    schedule = Schedule("step", decay_every=25, decay_factor=0.95)
    assert [schedule.factor(step, 100) for step in (0, 24, 25, 50)] == pytest.approx([1.0, 1.0, 0.95, 0.95**2])


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_every_factor_is_above_zero_and_at_most_one(shape: str, steps: int) -> None:
    assert all(0.0 < factor <= 1.0 for factor in factors(Schedule(shape, warmup_fraction=0.1), steps))


@pytest.mark.parametrize(
    ("fields", "option", "message"),
    [
        ({"shape": "cosin"}, "shape", "did you mean 'cosine'"),
        ({"warmup_fraction": 1.0}, "warmup_fraction", "below 1: got 1.0"),
        ({"warmup_fraction": math.nan}, "warmup_fraction", "got nan"),
        ({"warmup_fraction": True}, "warmup_fraction", "got True"),
        ({"shape": "wsd", "decay_fraction": 0.9, "warmup_fraction": 0.2}, "decay_fraction", "got 0.9"),
        ({"shape": "wsd", "decay_fraction": 0.0}, "decay_fraction", "above 0"),
        ({"shape": "cosine", "final_fraction": 1.5}, "final_fraction", "got 1.5"),
        ({"shape": "cosine", "decay_fraction": 0.3}, "decay_fraction", "'cosine' does not take it"),
        ({"shape": "step", "decay_factor": 0.9}, "decay_every", "'step' needs it"),
        ({"shape": "step", "decay_factor": 0.9, "decay_every": 2.5}, "decay_every", "got 2.5"),
        ({"shape": "step", "decay_factor": 0.0, "decay_every": 2}, "decay_factor", "got 0.0"),
    ],
)
def test_an_impossible_option_is_refused_by_name(fields: dict[str, Any], option: str, message: str) -> None:
    with pytest.raises(ScheduleOptionError, match=message) as caught:
        Schedule(**fields)
    assert caught.value.option == option
