"""Where ROOT's coefficients are from: table, calibrated, online."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from optimizers import Root, RootRule, polar_factor
from optimizers.calibration import calibrate, calibrated_triples, calibration_loss, gaussian_spectrum
from optimizers.coefficients import CLASSIC, ROOT_TRIPLES
from optimizers.triple_fit import fitted, refitted
from tests.optimizers.references import gaussian, newton_schulz_reference, orthogonal, polar_reference

PLAIN = {"momentum": 0.9, "ns_steps": 5, "eps": 1e-7, "percentile": 0.9}
ONLINE = RootRule(coefficients="online", refit_every=2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTUNE_CACHE_DIR", str(tmp_path))
    return tmp_path / "coefficients"


def keep_fit(folder, name, triples, *, age=0):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"triples": triples}))
    os.utime(path, ns=(10**18 - age * 10**9, 10**18 - age * 10**9))


def decaying(rows, columns, *, power, seed=0):
    """A matrix with singular values 1, 2^-power, 3^-power, …"""
    fewer = min(rows, columns)
    sigma = torch.arange(1.0, fewer + 1, dtype=torch.float64) ** -power
    return orthogonal(rows, seed=seed)[:, :fewer] @ torch.diag(sigma) @ orthogonal(columns, seed=seed + 1)[:fewer]


def follow(rule, gradients, hyperparameters=PLAIN):
    state, updates = rule.initial_state(gradients[0]), []
    for gradient in gradients:
        update, state = rule.update(gradient, state, hyperparameters)
        updates.append(update)
    return updates, state


@pytest.mark.parametrize("shape", [(3, 6, 9), (3, 9, 6), (6, 6)])
@pytest.mark.parametrize("steps", [4, torch.tensor([1, 3, 2])])
def test_each_matrix_is_iterated_with_its_own_triples(shape, steps):
    batch = gaussian(*shape)
    triples = gaussian(3, 2, 3, seed=1) if batch.ndim == 3 else gaussian(2, 3, seed=1)
    if batch.ndim == 2 and isinstance(steps, torch.Tensor):
        steps = steps[0]
    together = polar_factor(batch, solver="adanewton", coefficients=triples, steps=steps)
    for index, matrix in enumerate(batch.reshape(-1, *shape[-2:])):
        count = int(steps.reshape(-1)[index]) if isinstance(steps, torch.Tensor) else steps
        rows = [tuple(row) for row in triples.reshape(-1, 2, 3)[index].tolist()]
        expected = newton_schulz_reference(matrix, [rows[min(step, 1)] for step in range(count)])
        torch.testing.assert_close(together.reshape(-1, *shape[-2:])[index], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "adanewton", "coefficients": torch.ones(1, 4)}, r"got shape \(1, 4\) for 'adanewton'"),
        ({"solver": "adanewton", "coefficients": torch.ones(3)}, r"got shape \(3,\)"),
        ({"solver": "gram", "coefficients": torch.ones(1, 3)}, r"newton_schulz and adanewton: got .* for 'gram'"),
        ({"solver": "adanewton", "coefficients": torch.ones(5, 1, 3)}, r"broadcast .*: got \(5, 1, 3\) for \(2,\)"),
    ],
)
def test_a_tensor_of_coefficients_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        polar_factor(gaussian(2, 4, 4), **options)


def test_own_triples_in_bfloat16_round_at_most_three_times_as_much_as_numbers():
    matrix = gaussian(48, 96, dtype=torch.float32)
    exact = polar_factor(matrix.double(), solver="adanewton")
    numbers, own = (
        polar_factor(matrix, solver="adanewton", compute_dtype="bfloat16", coefficients=coefficients)
        for coefficients in (CLASSIC, torch.tensor([CLASSIC]))
    )
    assert (own - exact).norm() < 3 * (numbers - exact).norm() < 0.2 * (exact - polar_reference(matrix)).norm()


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
    from optimizers.triple_fit import _residuals

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


def test_online_is_the_table_until_its_first_refit_and_then_more_exact():
    gradients = [decaying(16, 24, power=0.8)] * 4
    by_table, _ = follow(RootRule(), gradients)
    online, state = follow(ONLINE, gradients)
    torch.testing.assert_close(online[0], by_table[0], rtol=0, atol=1e-12)
    scale = 0.2 * 24**0.5
    for step in (1, 2, 3):
        errors = [
            (torch.linalg.svdvals(updates[step] / scale) - 1).square().mean().item() for updates in (online, by_table)
        ]
        assert errors[0] < 0.8 * errors[1]
    assert state["step"].item() == 4


def test_members_of_a_population_carry_their_own_triples_and_begin_at_different_times():
    def column(*values, dtype=torch.float64):
        return torch.tensor(values, dtype=dtype)[:, None, None]

    members = {**PLAIN, "percentile": column(0.8, 1.0, 0.9), "ns_steps": column(3, 5, 4, dtype=torch.int64)}
    gradients = [gaussian(3, 8, 12, seed=seed) for seed in range(5)]
    state = ONLINE.initial_state(gradients[0])
    state["step"][1] += 1  # a member that was here before
    together = []
    for gradient in gradients:
        update, state = ONLINE.update(gradient, state, members)
        together.append(update)
    for k in range(3):
        own = {**PLAIN, "percentile": members["percentile"][k].item(), "ns_steps": members["ns_steps"][k].item()}
        alone = ONLINE.initial_state(gradients[0][k])
        alone["step"] += int(k == 1)
        for step, gradient in enumerate(gradients):
            update, alone = ONLINE.update(gradient[k], alone, own)
            torch.testing.assert_close(together[step][k], update, rtol=0, atol=1e-9)
        assert torch.equal(state["triples"][k], alone["triples"])
    assert len({tuple(each.flatten().tolist()) for each in state["triples"]}) == 3


def test_a_non_finite_member_spoils_only_its_own_update_when_its_triple_is_refitted():
    clean = [gaussian(3, 6, 8, seed=seed) for seed in range(4)]
    spoiled = [gradient.clone() for gradient in clean]
    spoiled[0][1, 2, 3] = torch.nan
    for update, expected in zip(follow(ONLINE, spoiled)[0], follow(ONLINE, clean)[0], strict=True):
        assert not update[1].isfinite().any()
        assert torch.equal(update[[0, 2]], expected[[0, 2]])


def test_calibrated_reads_the_fit_that_was_last_made_or_asked_for(folder):
    older, newer = [[3.0, -4.0, 2.0]], [[2.5, -3.0, 1.5]] * 5
    keep_fit(folder, "4x12-steps5-v1-gaussian", older, age=9)
    keep_fit(folder, "4x12-steps5-each-v1-gaussian", newer, age=5)
    keep_fit(folder, "4x12-steps50-v1-gaussian", [[9.0, 9.0, 9.0]])
    keep_fit(folder, "4x12-steps5-v0-gaussian", [[9.0, 9.0, 9.0]])
    keep_fit(folder, "4x12-steps5-v1-mix1to3-damaged", [[1.0]])
    assert calibrated_triples((12, 4)) == ((2.5, -3.0, 1.5),) * 5
    assert calibrate((4, 12)) == ((3.0, -4.0, 2.0),)  # known, and asked for just now
    assert calibrated_triples((4, 12)) == ((3.0, -4.0, 2.0),) * 5


def test_calibrated_iterates_with_the_fit_and_keeps_it_though_a_later_one_is_made(folder):
    keep_fit(folder, "6x9-steps5-v1-gaussian", [[3.0, -4.0, 1.9]], age=9)
    rule, gradient = RootRule(coefficients="calibrated"), gaussian(6, 9)
    state = rule.initial_state(gradient)
    keep_fit(folder, "6x9-steps5-v1-mix1to3-later", [[2.0, -1.5, 0.5]])
    update, state = rule.update(gradient, state, {**PLAIN, "percentile": 1.0})
    expected = newton_schulz_reference(gradient, [(3.0, -4.0, 1.9)] * 5) * 0.2 * 9**0.5
    torch.testing.assert_close(update, expected, rtol=0, atol=1e-10)


def test_a_shape_that_nothing_is_calibrated_for_is_refused_with_the_command(folder):
    keep_fit(folder, "4x12-steps5-v1-gaussian", [[3.0, -4.0, 2.0]])
    Root([nn.Parameter(torch.zeros(12, 4))], coefficients="calibrated")
    with pytest.raises(ValueError, match=r"`spectune calibrate --shape 12x5` makes them: got 12x5"):
        Root([nn.Parameter(torch.zeros(12, 4)), nn.Parameter(torch.zeros(12, 5))], coefficients="calibrated")
    with pytest.raises(ValueError, match=r"--shape 4x12 --steps 3`"):
        calibrated_triples((4, 12), steps=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficients": "onlin"}, "coefficients must be one of table, calibrated, online: got 'onlin'"),
        ({"coefficients": "online", "solver": "svd"}, "coefficients='online' are for solver 'adanewton': got 'svd'"),
        ({"coefficients": "online", "capturable": True}, "got capturable=True"),
        ({"refit_every": 0}, "refit_every must be at least 1: got 0"),
    ],
)
def test_an_illegal_mode_is_refused_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        Root([nn.Parameter(torch.zeros(3, 3))], **options)
    with pytest.raises(ValueError, match=r"did you mean 'online'\?: got 'onlin'"):
        RootRule(coefficients="onlin")


RESUME = """
import sys, torch
from torch import nn
from optimizers import Root
saved = torch.load(sys.argv[1], weights_only=True)
params = [nn.Parameter(value) for value in saved["params"]]
optimizer = Root(params)
optimizer.load_state_dict(state_dict=saved["optimizer"])
for _ in range(3):
    for parameter, gradient in zip(params, saved["gradients"]):
        parameter.grad = gradient
    optimizer.step()
torch.save([parameter.detach() for parameter in params], sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_online_triples_go_on_in_a_fresh_process_that_loads_weights_only(dtype, tmp_path):
    shapes = [(7, 5), (5, 7), (7, 5)]
    params = [nn.Parameter(gaussian(*shape, seed=seed, dtype=dtype)) for seed, shape in enumerate(shapes)]
    gradients = [decaying(*shape, power=0.8, seed=seed).to(dtype) for seed, shape in enumerate(shapes)]
    optimizer = Root(params, lr=0.01, coefficients="online", refit_every=2)

    def train():
        for _ in range(3):
            for parameter, gradient in zip(params, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    train()
    assert optimizer.state[params[0]]["triples"].shape == (1, 3)
    content = {
        "params": [parameter.detach() for parameter in params],
        "gradients": gradients,
        "optimizer": optimizer.state_dict(),
    }
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    subprocess.run([sys.executable, "-c", RESUME, str(path)], check=True, timeout=120)
    train()
    for resumed, here in zip(torch.load(path, weights_only=True), params, strict=True):
        assert torch.equal(resumed, here.detach())
