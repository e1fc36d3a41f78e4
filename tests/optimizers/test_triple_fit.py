"""Refits of triples to running momenta, against the calibration and against autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.optimizers.polar.coefficients import CLASSIC, ROOT_TRIPLES
from spectune.optimizers.rules.calibration import calibrate, calibration_loss, gaussian_spectrum
from spectune.optimizers.rules.triple_fit import _residuals, fitted, refitted
from tests.optimizers.references import decaying


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTUNE_CACHE_DIR", str(tmp_path))


def test_the_loss_of_a_refit_is_that_of_a_calibration():
    sigma = gaussian_spectrum((48, 96))
    weight = torch.full_like(sigma, 1 / len(sigma))
    start = torch.tensor([CLASSIC, ROOT_TRIPLES[2048, 8192]], dtype=torch.float64)
    _, losses = fitted(start, sigma.expand(2, -1), weight.expand(2, -1), steps=5, iterations=0)
    for triple, loss in zip(start.tolist(), losses.tolist(), strict=True):
        assert loss == pytest.approx(calibration_loss([tuple(triple)], (48, 96)), abs=1e-12)  # no penalty here
    _, [penalised] = fitted(torch.tensor([[4.5, -4.8, 2.0]]), sigma[None], weight[None], steps=5, iterations=0)
    assert penalised > 1.1 * calibration_loss([(4.5, -4.8, 2.0)], (48, 96))


def test_the_jacobian_of_a_refit_is_the_derivative():
    sigma, counts = torch.rand(2, 7, dtype=torch.float64), torch.tensor([5, 2])
    triples = torch.tensor([[4.1, -4.5, 1.9], [3.4, -4.8, 2.0]], dtype=torch.float64)

    def residual(triple):
        return _residuals(triple, sigma, torch.ones_like(sigma), counts, 5)[0]

    _, jacobian = _residuals(triples, sigma, torch.ones_like(sigma), counts, 5)
    derivative = torch.autograd.functional.jacobian(residual, triples)
    for fit in range(2):
        torch.testing.assert_close(jacobian[fit], derivative[fit, :, fit], rtol=1e-10, atol=1e-10)
        assert not derivative[fit, :, 1 - fit].any()
    assert residual(triples)[:, 7:].any()  # the penalty takes part


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (32, 32)])
def test_a_refit_reaches_the_calibration_of_the_same_momentum(shape):
    momentum = decaying(*shape, power=0.7)
    start = torch.tensor([[CLASSIC]], dtype=torch.float64)
    [[found]] = refitted(momentum[None], start, steps=5).tolist()
    [best] = calibrate(shape, momenta=[momentum])
    losses = [calibration_loss([tuple(each)], shape, momenta=[momentum]) for each in (found, best, CLASSIC)]
    assert losses[0] < 1.3 * losses[1] + 1e-4
    assert losses[0] < 0.7 * losses[2]
    again = refitted(momentum[None], torch.tensor([[found]], dtype=torch.float64), steps=5)
    assert calibration_loss([tuple(again[0, 0].tolist())], shape, momenta=[momentum]) < losses[0] + 1e-5


def test_refits_of_a_batch_are_those_of_each_alone_with_its_own_steps():
    batch = torch.stack([decaying(12, 20, power=power, seed=seed) for seed, power in enumerate((0.3, 0.8, 1.2))])
    start, steps = torch.tensor([[CLASSIC]], dtype=torch.float64).repeat(3, 1, 1), torch.tensor([5, 3, 4])
    together = refitted(batch, start, steps=steps)
    alone = [refitted(batch[[k]], start[[k]], steps=int(steps[k])) for k in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert len({tuple(row) for row in together.flatten(1).tolist()}) == 3


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_matrix_that_says_nothing_keeps_its_triple_and_spoils_no_other(bad):
    batch = torch.stack([decaying(6, 9, power=power) for power in (0.3, 0.8)])
    start = torch.tensor([[CLASSIC]], dtype=torch.float64).repeat(2, 1, 1)
    clean = refitted(batch, start, steps=5)
    batch[0] = batch[0] * bad
    refit = refitted(batch, start, steps=5)
    assert torch.equal(refit[0], start[0])
    assert torch.equal(refit[1], clean[1])


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), power=st.floats(0, 3), seed=st.integers(0, 99))
def test_a_refit_never_gets_worse_and_stays_bounded_whatever_the_matrix(rows, columns, power, seed):
    momentum = decaying(rows, columns, power=power, seed=seed)
    start = torch.tensor([[CLASSIC]], dtype=torch.float64)
    found = refitted(momentum[None], start, steps=5)
    losses = [calibration_loss(each.tolist(), (rows, columns), momenta=[momentum]) for each in (found[0], start[0])]
    assert losses[0] < losses[1] + 1e-4
    sigma = torch.linspace(0, 1, 50, dtype=torch.float64)
    a, b, c = found.flatten()
    for _ in range(5):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
        assert sigma.min() > -0.3
        assert sigma.max() < 1.6
