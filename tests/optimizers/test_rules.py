"""The functional stages: each rule against its formulas, batches against loops, tensors against numbers."""

from __future__ import annotations

import math

import pytest
import torch

from spectune.optimizers.polar.coefficients import CLASSIC
from spectune.optimizers.rules.adamw import AdamWRule
from spectune.optimizers.rules.gradient_descent import GradientDescentRule
from spectune.optimizers.rules.muon import SCALES, MuonRule
from spectune.optimizers.rules.polargrad import PolarGradRule
from spectune.optimizers.rules.root import RootRule
from spectune.optimizers.rules.spectral import apply_update
from spectune.optimizers.rules.spectral_descent import SpectralDescentRule
from tests.optimizers.references import (
    gaussian,
    newton_schulz_reference,
    orthogonal,
    polar_reference,
    quantile_reference,
)

PLAIN = {"momentum": 0.9, "ns_steps": 5, "eps": 1e-7, "percentile": 0.85}
RULES = {
    "muon": MuonRule(),
    "muon rms_to_rms": MuonRule(adjust_lr_fn="rms_to_rms", nesterov=False, solver="polar_express"),
    "polargrad": PolarGradRule(),
    "polargrad polar first": PolarGradRule(polar_first=True, scale="nuclear", solver="newton_schulz"),
    "polargrad heavy ball": PolarGradRule(heavy_ball=True, nesterov=True),
    "root": RootRule(),
    "spectral descent": SpectralDescentRule(),
    "spectral descent newton_schulz": SpectralDescentRule(solver="newton_schulz"),
    "root sampled": RootRule(quantile="sampled"),
    "root online": RootRule(coefficients="online", refit_every=2),
    "root plain": RootRule(nesterov=False, solver="svd"),
}
every_rule = pytest.mark.parametrize("rule", list(RULES.values()), ids=list(RULES))


def follow(rule, gradients, hyperparameters):
    """Give the update of each step."""
    state = rule.initial_state(gradients[0])
    updates = []
    for gradient in gradients:
        update, state = rule.update(gradient, state, hyperparameters)
        updates.append(update)
    return updates


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_muon_follows_its_formula(nesterov, shape):
    gradients = [gaussian(*shape, seed=seed) for seed in range(4)]
    buffer = torch.zeros(shape, dtype=torch.float64)
    for gradient, update in zip(
        gradients, follow(MuonRule(nesterov=nesterov, compute_dtype="auto"), gradients, PLAIN), strict=True
    ):
        buffer = 0.9 * buffer + 0.1 * gradient
        followed = 0.9 * buffer + 0.1 * gradient if nesterov else buffer
        expected = newton_schulz_reference(followed, [CLASSIC] * 5) * math.sqrt(max(1, shape[0] / shape[1]))
        torch.testing.assert_close(update, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("nesterov", [True, False])
def test_root_clips_what_it_follows_and_not_its_momentum(nesterov):
    gradients = [gaussian(7, 5, seed=seed) ** 3 for seed in range(4)]
    buffer = torch.zeros(7, 5, dtype=torch.float64)
    for gradient, update in zip(gradients, follow(RootRule(nesterov=nesterov), gradients, PLAIN), strict=True):
        buffer = 0.9 * buffer + gradient
        followed = 0.9 * buffer + gradient if nesterov else buffer
        limit = quantile_reference(followed, 0.85)
        expected = newton_schulz_reference(followed.clamp(-limit, limit), [CLASSIC] * 5) * 0.2 * math.sqrt(7)
        torch.testing.assert_close(update, expected, rtol=0, atol=1e-10)


def test_spectral_descent_follows_its_formula_and_moves_only_what_the_gradient_spans():
    low_rank = gaussian(9, 2) @ gaussian(2, 5, seed=1)
    for gradient in (gaussian(7, 5), low_rank):
        [update] = follow(SpectralDescentRule(), [gradient], PLAIN)
        torch.testing.assert_close(update, polar_reference(gradient), rtol=0, atol=1e-10)
    assert torch.linalg.matrix_rank(update) == 2


@pytest.mark.parametrize("conditioning", [1e1, 1e4])
def test_spectral_descent_needs_as_many_steps_whatever_the_conditioning_and_gradient_descent_does_not(conditioning):
    """Matrix factorisation in the singular basis: each mode's relative error, at its worst."""
    sigma = torch.logspace(0, -math.log10(conditioning), 4, dtype=torch.float64)
    left, right = orthogonal(8, seed=1)[:, :4], orthogonal(6, seed=2)[:, :4]
    target = left @ torch.diag(sigma) @ right.mT

    def worst_mode(rule, rates):
        U, V = 1e-4 * left, 1e-4 * right
        for rate in rates:
            residual = U @ V.mT - target
            steps = [rule.update(gradient, {}, PLAIN)[0] for gradient in (residual @ V, residual.mT @ U)]
            U, V = U - rate * steps[0], V - rate * steps[1]
        return ((left.mT @ U @ V.mT @ right).diagonal() / sigma - 1).abs().max().item()

    assert worst_mode(SpectralDescentRule(), [0.1 * 0.93**step for step in range(400)]) < 1e-2
    plain = worst_mode(GradientDescentRule(), [0.5] * 400)
    assert plain < 1e-2 if conditioning == 1e1 else plain > 0.9


@pytest.mark.parametrize("heavy_ball", [False, True])
@pytest.mark.parametrize("scale", ["nuclear", "nuclear_mean"])
@pytest.mark.parametrize("polar_first", [False, True])
def test_polargrad_follows_its_formulas(polar_first, scale, heavy_ball):
    rule = PolarGradRule(polar_first=polar_first, scale=scale, heavy_ball=heavy_ball)
    gradients = [gaussian(8, 5, seed=seed) for seed in range(4)]
    buffer = torch.zeros(8, 5, dtype=torch.float64)
    for gradient, update in zip(gradients, follow(rule, gradients, PLAIN), strict=True):
        incoming = polar_reference(gradient) if polar_first else gradient
        buffer = 0.9 * buffer + (1.0 if heavy_ball else 0.1) * incoming
        measured = gradient if polar_first else buffer
        length = torch.linalg.svdvals(measured).sum() / (5 if scale == "nuclear_mean" else 1)
        expected = length * (buffer if polar_first else polar_reference(buffer))
        torch.testing.assert_close(update, expected, rtol=1e-10, atol=1e-10)


def test_a_step_of_polargrad_vanishes_with_the_gradient_and_one_of_muon_does_not():
    gradient = gaussian(6, 6)
    for scale in (1.0, 1e-6):
        [polargrad] = follow(PolarGradRule(), [scale * gradient], PLAIN)
        [muon] = follow(MuonRule(), [scale * gradient], {**PLAIN, "eps": 0.0})
        assert polargrad.norm() == pytest.approx(scale * follow(PolarGradRule(), [gradient], PLAIN)[0].norm())
        assert muon.norm() == pytest.approx(follow(MuonRule(), [gradient], PLAIN)[0].norm())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("original", (8, 2), 2.0),
        ("original", (2, 8), 1.0),
        ("match_rms_adamw", (25, 9), 1.0),
        ("match_rms_adamw", (9, 25), 1.0),
        ("rms_to_rms", (8, 2), 2.0),
        ("rms_to_rms", (2, 8), 0.5),
    ],
)
def test_the_learning_rate_is_adjusted_to_the_shape(name, shape, expected):
    assert SCALES[name](*shape) == pytest.approx(expected)


@every_rule
def test_batched_equals_looped(rule):
    gradients = [gaussian(2, 3, 6, 8, seed=seed) for seed in range(3)]
    together = follow(rule, gradients, PLAIN)
    for i in range(2):
        for j in range(3):
            alone = follow(rule, [gradient[i, j] for gradient in gradients], PLAIN)
            for step in range(3):
                torch.testing.assert_close(together[step][i, j], alone[step], rtol=0, atol=1e-12)


@every_rule
def test_each_member_may_have_its_own_hyperparameters(rule):
    def column(*values, dtype=torch.float64):
        return torch.tensor(values, dtype=dtype)[:, None, None]

    members = {
        "momentum": column(0.5, 0.9, 0.99),
        "ns_steps": column(3, 7, 5, dtype=torch.int64),
        "eps": column(1e-7, 1e-3, 0.0),
        "percentile": column(0.8, 0.95, 1.0),
    }
    gradients = [gaussian(3, 8, 6, seed=seed) for seed in range(3)]
    together = follow(rule, gradients, members)
    for member in range(3):
        own = {name: values[member].item() for name, values in members.items()}
        alone = follow(rule, [gradient[member] for gradient in gradients], own)
        for step in range(3):
            torch.testing.assert_close(together[step][member], alone[step], rtol=0, atol=1e-12)


@every_rule
def test_a_non_finite_gradient_spoils_only_its_own_matrix(rule):
    clean = [gaussian(3, 6, 8, seed=seed) for seed in range(2)]
    spoiled = [gradient.clone() for gradient in clean]
    spoiled[0][1, 2, 3] = math.inf
    remembers = bool(rule.initial_state(clean[0]))
    updates = zip(follow(rule, spoiled, PLAIN), follow(rule, clean, PLAIN), strict=True)
    for step, (update, expected) in enumerate(updates):
        assert update[1].isfinite().any() == (step > 0 and not remembers)
        assert torch.equal(update[[0, 2]], expected[[0, 2]])


@every_rule
def test_a_zero_gradient_gives_no_update(rule):
    zero = torch.zeros(4, 6)
    assert torch.equal(follow(rule, [zero], PLAIN)[0], zero)


@every_rule
def test_nothing_is_changed_in_place_and_the_dtype_is_kept(rule):
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        gradient, state = gaussian(4, 6, dtype=dtype), rule.initial_state(torch.zeros(4, 6, dtype=dtype))
        before, old = gradient.clone(), {name: tensor.clone() for name, tensor in state.items()}
        update, new = rule.update(gradient, state, PLAIN)
        assert torch.equal(gradient, before)
        assert all(torch.equal(tensor, old[name]) for name, tensor in state.items())
        assert {name: tensor.dtype for name, tensor in new.items()} == {name: old[name].dtype for name in old}
        assert {update.dtype, new.get("momentum_buffer", update).dtype} == {dtype}


@pytest.mark.parametrize(
    "rule", [MuonRule(compute_dtype="auto"), MuonRule(solver="svd"), RootRule(), PolarGradRule(), SpectralDescentRule()]
)
def test_an_update_turns_with_the_gradient_where_entries_do_not_matter(rule):
    P, Q = orthogonal(5, seed=1), orthogonal(7, seed=2)
    gradient, hyperparameters = gaussian(5, 7), {**PLAIN, "percentile": 1.0}
    turned = follow(rule, [P @ gradient @ Q], hyperparameters)[0]
    torch.testing.assert_close(turned, P @ follow(rule, [gradient], hyperparameters)[0] @ Q, rtol=0, atol=1e-10)


def test_apply_update_decays_with_the_unscaled_rate_and_takes_a_rate_for_each_member():
    parameter, update = gaussian(2, 3, 4), gaussian(2, 3, 4, seed=1)
    rates, decays = torch.tensor([0.1, 0.5]).double()[:, None, None], torch.tensor([0.0, 0.2]).double()[:, None, None]
    result = apply_update(parameter, update, lr=rates, weight_decay=decays)
    torch.testing.assert_close(result[0], parameter[0] - 0.1 * update[0])
    torch.testing.assert_close(result[1], 0.9 * parameter[1] - 0.5 * update[1])


def test_the_functional_adamw_equals_torch():
    members = [((0.9, 0.999), 1e-8, 0.01, 0.1), ((0.8, 0.95), 1e-3, 0.1, 0.0)]
    start, gradients = gaussian(2, 5), [gaussian(2, 5, seed=seed) for seed in range(1, 6)]

    def column(values):
        return torch.tensor(values, dtype=torch.float64)[:, None]

    hyperparameters = {
        "betas": (column([m[0][0] for m in members]), column([m[0][1] for m in members])),
        "eps": column([m[1] for m in members]),
    }
    rule, parameter = AdamWRule(), start
    state = rule.initial_state(parameter)
    for gradient in gradients:
        update, state = rule.update(gradient, state, hyperparameters)
        parameter = apply_update(
            parameter, update, lr=column([m[2] for m in members]), weight_decay=column([m[3] for m in members])
        )
    for member, (betas, eps, lr, decay) in enumerate(members):
        theirs = torch.nn.Parameter(start[member].clone())
        optimizer = torch.optim.AdamW([theirs], lr=lr, betas=betas, eps=eps, weight_decay=decay)
        for gradient in gradients:
            theirs.grad = gradient[member].clone()
            optimizer.step()
        torch.testing.assert_close(parameter[member], theirs.detach(), rtol=0, atol=1e-12)


def test_a_rule_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"did you mean 'original'.*got 'orignal'"):
        MuonRule(adjust_lr_fn="orignal")
    with pytest.raises(ValueError, match=r"did you mean 'nuclear'.*got 'nuklear'"):
        PolarGradRule(scale="nuklear")
    with pytest.raises(ValueError, match="fixed coefficients"):
        MuonRule(solver="svd", ns_coefficients=CLASSIC)
