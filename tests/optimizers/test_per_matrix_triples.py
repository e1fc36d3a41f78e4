"""The iteration with coefficients that are tensors."""

from __future__ import annotations

import pytest
import torch

from spectune.optimizers import polar_factor
from spectune.optimizers.polar.coefficients import CLASSIC
from tests.optimizers.references import gaussian, newton_schulz_reference, polar_reference


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
