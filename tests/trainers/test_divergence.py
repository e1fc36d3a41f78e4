"""When a trial is beyond hope."""

from __future__ import annotations

import math

import pytest
import torch

from spectune.trainers.engines.divergence import Watch, rms


def watch_of(*losses: float, first_rms: float = 1.0) -> Watch:
    watch = Watch(first_rms)
    for loss in losses:
        watch.add(torch.tensor(loss))
    return watch


def test_rms_is_over_all_entries_of_all_tensors() -> None:
    assert rms([torch.full((3,), 2.0), torch.zeros(1)]) == pytest.approx(math.sqrt(12 / 4))


def test_losses_that_fall_are_summed_and_pass() -> None:
    watch = watch_of(4.0, 2.0, 1.0)
    assert watch.inspect_losses(3) is None
    assert (watch.loss_sum, watch.loss_count) == (7.0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10.1])
def test_the_first_bad_loss_of_a_block_counts_at_its_own_step(bad: float) -> None:
    watch = watch_of(1.0, 1.0, bad, 1.0)
    assert watch.inspect_losses(24) == 23
    assert "at step 23" in watch.reason
    assert watch.loss_count == 3


def test_ten_times_the_first_loss_is_the_bound_even_across_blocks() -> None:
    watch = watch_of(1.0)
    assert watch.inspect_losses(1) is None
    watch.add(torch.tensor(10.0))
    assert watch.inspect_losses(2) is None
    watch.add(torch.tensor(10.5))
    assert watch.inspect_losses(3) == 3


def test_a_first_loss_of_zero_sets_no_bound() -> None:
    assert watch_of(0.0, 5.0).inspect_losses(2) is None


def test_weights_beyond_ten_thousand_times_their_start_have_diverged() -> None:
    watch = watch_of()
    assert watch.inspect_weights(8, [torch.full((4,), 0.9e4)]) is None
    assert watch.inspect_weights(16, [torch.full((4,), 1.1e4)]) == 16
    assert "1.1e+04 times their start after step 16" in watch.reason


def test_one_weight_that_is_not_finite_is_seen() -> None:
    watch = watch_of()
    assert watch.inspect_weights(8, [torch.ones(3), torch.tensor([1.0, math.nan])]) == 8
    assert watch.reason == "the weights are not finite after step 8"


def test_weights_that_start_at_zero_have_no_bound() -> None:
    assert watch_of(first_rms=0.0).inspect_weights(8, [torch.ones(2)]) is None


def test_a_restored_watch_remembers_the_first_loss() -> None:
    watch = watch_of(1.0)
    watch.inspect_losses(1)
    other = Watch(5.0)
    other.restore(watch.state())
    other.add(torch.tensor(10.5))
    assert other.inspect_losses(2) == 2
    assert other.loss_sum == 11.5
