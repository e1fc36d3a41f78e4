"""Noise on gradients: its distribution, its purity, and what the solo engine does with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spectune.trainers import SoloTrial, TaskOptionError, TrialSetting, task_from_options
from spectune.trainers.gradient_noise import GradientNoise

HEAVY = GradientNoise("student_t", 2.0, 0.001, 3.0)
SPIKES = GradientNoise("spikes", 100.0, 0.01, 3.0)


@pytest.mark.parametrize("noise", [HEAVY, SPIKES])
def test_a_draw_is_a_function_of_name_seed_and_step_alone(noise: GradientNoise) -> None:
    first = noise.draw("left", (40, 30), seed=1, step=2)
    torch.rand(3)
    assert torch.equal(first, noise.draw("left", (40, 30), seed=1, step=2))
    for name, seed, step in (("right", 1, 2), ("left", 2, 2), ("left", 1, 3)):
        assert not torch.equal(first, noise.draw(name, (40, 30), seed=seed, step=step))
    assert (first.dtype, first.device.type, first.shape) == (torch.float32, "cpu", (40, 30))


def test_students_t_has_the_quantiles_of_its_table() -> None:
    draws = HEAVY.draw("w", (400, 500), seed=0, step=0).double().flatten()
    for probability, quantile in ((0.75, 0.765), (0.95, 2.353), (0.995, 5.841)):  # nu = 3
        assert (draws < quantile).double().mean().item() == pytest.approx(probability, abs=0.003)
    assert (draws < 1.645).double().mean().item() != pytest.approx(0.95, abs=0.003)  # a normal one's


def test_spikes_hit_their_share_of_entries_with_either_sign() -> None:
    draws = SPIKES.draw("w", (400, 500), seed=0, step=0)
    assert set(draws.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (draws != 0).double().mean().item() == pytest.approx(0.01, rel=0.1)
    assert draws.mean().abs().item() < 0.001


def test_noise_is_in_units_of_each_gradients_root_mean_square_and_leaves_zero_alone() -> None:
    gradient = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = gradient.clone()
    disturbed = HEAVY.disturb("w", gradient, seed=1, step=2)
    expected = kept + 2.0 * kept.square().mean().sqrt() * HEAVY.draw("w", (6, 5), seed=1, step=2).double()
    torch.testing.assert_close(disturbed, expected)
    assert torch.equal(gradient, kept)
    assert torch.equal(HEAVY.disturb("w", torch.zeros(6, 5), seed=1, step=2), torch.zeros(6, 5))


def test_a_stack_of_trials_gets_what_each_would_get_alone() -> None:
    gradients = (
        torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.0])[:, None, None]
    )
    seeds, steps = (1, 2, 1), (0, 7, 0)
    stacked = HEAVY.disturb_stack("w", gradients, seeds=seeds, steps=steps)
    alone = [HEAVY.disturb("w", g, seed=s, step=t) for g, s, t in zip(gradients, seeds, steps, strict=True)]
    torch.testing.assert_close(stacked, torch.stack(alone), rtol=1e-6, atol=0.0)


def test_a_trial_takes_the_disturbed_step_and_resumes_to_the_same_bits(setting: Callable[..., TrialSetting]) -> None:
    plain = setting(optimizer="sgd", hyperparameters={"lr": 0.1}, steps=6)
    task = task_from_options(
        "matrix_completion",
        {"rows": 40, "columns": 30, "rank": 3, "observed_fraction": 0.5, "gradient_noise": "student_t"},
    )
    noisy = setting(optimizer="sgd", hyperparameters={"lr": 0.1}, steps=6)
    noisy = TrialSetting(**{**vars(noisy), "task": task})
    trials = [SoloTrial(plain), SoloTrial(noisy), SoloTrial(noisy)]
    for trial in trials[:2]:
        trial.advance(6)
    assert not torch.equal(trials[0].model.left, trials[1].model.left)  # type: ignore[arg-type]
    halfway = SoloTrial(noisy)
    halfway.advance(3)
    trials[2].restore(halfway.state())
    trials[2].advance(6)
    assert torch.equal(trials[1].model.left, trials[2].model.left)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"gradient_noise": "normal"}, "gradient_noise"),
        ({"gradient_noise_amount": -1.0}, "gradient_noise_amount"),
        ({"gradient_noise_rate": 1.5}, "gradient_noise_rate"),
        ({"gradient_noise_degrees_of_freedom": 0.5}, "gradient_noise_degrees_of_freedom"),
    ],
)
def test_noise_that_cannot_be_is_refused_by_name(options: dict[str, object], option: str) -> None:
    with pytest.raises(TaskOptionError) as caught:
        task_from_options("matrix_completion", options).check()
    assert caught.value.option == option
