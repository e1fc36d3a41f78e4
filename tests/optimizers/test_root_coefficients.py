"""Where ROOT's coefficients are from: table, calibrated, online."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from spectune.optimizers import Root, RootRule, build_optimizer
from spectune.optimizers.rules.calibration import calibrate, calibrated_triples
from tests.optimizers.references import decaying, gaussian, newton_schulz_reference

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


def follow(rule, gradients, hyperparameters=PLAIN):
    state, updates = rule.initial_state(gradients[0]), []
    for gradient in gradients:
        update, state = rule.update(gradient, state, hyperparameters)
        updates.append(update)
    return updates, state


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
from spectune.optimizers import Root
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


def test_calibrated_looks_for_the_shapes_of_the_blocks_of_a_parameter(folder):
    keep_fit(folder, "4x6-steps5-v1-gaussian", [[3.0, -4.0, 1.9]])
    fused, convolution = nn.Parameter(torch.zeros(8, 6)), nn.Parameter(torch.zeros(4, 3, 2))
    options = {"coefficients": "calibrated"}
    optimizer = Root([{"params": [fused], "num_heads": 2}, {"params": [convolution], "flatten": True}], **options)
    fused.grad, convolution.grad = gaussian(8, 6, dtype=torch.float32), gaussian(4, 3, 2, dtype=torch.float32)
    optimizer.step()
    assert optimizer.state[fused]["triples"].shape == (2, 5, 3)
    with pytest.raises(ValueError, match="--shape 8x6`"):
        Root([fused], **options)


def test_build_optimizer_takes_the_modes():
    layers = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    optimizer = build_optimizer(layers, "root", coefficients="online", refit_every=7)
    assert (optimizer.param_groups[0]["coefficients"], optimizer.param_groups[0]["refit_every"]) == ("online", 7)
    with pytest.raises(ValueError, match="`spectune calibrate --shape 8x6`"):
        build_optimizer(layers, "root", coefficients="calibrated")
