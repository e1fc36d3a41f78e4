"""A product in bfloat16 is the same on a processor that has instructions for it and on one that has none."""

from __future__ import annotations

import pytest
import torch

from spectune.optimizers.polar import half_products
from spectune.optimizers.polar.half_products import addmm, baddbmm, bmm, mm
from spectune.optimizers.polar.polar_factor import polar_factor
from tests.optimizers.references import gaussian

ROUNDING = 2**-8
SIZES = [(1, 1, 1), (3, 5, 7), (16, 16, 16), (33, 64, 20)]
LAYOUTS = {"as it is": lambda matrix: matrix, "transposed": lambda matrix: matrix.mT.contiguous().mT}


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def _processor(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(half_products, "IS_NATIVE", False)


def given(*shape, seed, layout="as it is"):
    return LAYOUTS[layout](gaussian(*shape, seed=seed).to(torch.bfloat16))


def assert_rounded_once(found, exact):
    """Accept what bfloat16 can hold of the sum, and what a sum in float32 may lose of terms that cancel."""
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= ROUNDING * exact.abs() + 1e-4).all()


@pytest.mark.usefixtures("_processor")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("has_out", [True, False])
def test_products_are_sums_in_float32_rounded_once(size, layout, has_out):
    rows, inner, columns = size
    for batch in ((), (3,)):
        left, right = given(*batch, rows, inner, seed=1, layout=layout), given(*batch, inner, columns, seed=2)
        added = given(*batch, rows, columns, seed=3, layout=layout)
        out = torch.empty_like(added).contiguous() if has_out else None
        multiply, multiply_add = (bmm, baddbmm) if batch else (mm, addmm)
        exact = left.double() @ right.double()
        found = multiply(left, right, out=out)
        assert out is None or found is out
        assert_rounded_once(found, exact)
        assert_rounded_once(
            multiply_add(added, left, right, beta=-4.775, alpha=2.03, out=out), -4.775 * added.double() + 2.03 * exact
        )


@pytest.mark.usefixtures("_processor")
def test_a_matrix_may_be_its_own_other_factor():
    for X in (given(2, 9, 14, seed=5), given(2, 9, 14, seed=5, layout="transposed")):
        assert_rounded_once(bmm(X, X.mT), X.double() @ X.double().mT)
        A = given(2, 9, 9, seed=6)
        assert_rounded_once(baddbmm(A, A, A, beta=0.5, alpha=2.0), 0.5 * A.double() + 2 * A.double() @ A.double())


@pytest.mark.parametrize("solver", ["newton_schulz", "minimax", "polar_express", "adanewton", "gram", "auto"])
@pytest.mark.parametrize("shape", [(24, 24), (3, 20, 64), (64, 20), (200, 210)])
def test_an_emulated_iteration_is_as_near_to_the_exact_one_as_a_native_one(solver, shape, monkeypatch):
    matrix = gaussian(*shape, dtype=torch.float32)
    exact = polar_factor(matrix.double(), solver=solver)
    errors = []
    for is_native in (True, False):
        monkeypatch.setattr(half_products, "IS_NATIVE", is_native)
        errors.append((polar_factor(matrix, solver=solver, compute_dtype="bfloat16").double() - exact).norm())
    native, emulated = errors
    assert 0.5 * native < emulated < 1.5 * native


def test_other_dtypes_and_devices_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(half_products, "IS_NATIVE", False)
    assert half_products.is_emulated(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not half_products.is_emulated(torch.zeros(2, 2))
    assert not half_products.is_emulated(torch.zeros(2, 2, dtype=torch.float16))
    assert not half_products.is_emulated(torch.zeros(2, 2, dtype=torch.bfloat16, device="meta"))
