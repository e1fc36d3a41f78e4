"""Refit the triple of a quintic iteration to running momenta, one for each matrix of a batch: AdaNewton while training.

    s₀ = σ,  s_t = p(s_{t−1}),  p(s) = a s + b s³ + c s⁵,   θ = (a, b, c)

    minimise over θ  ‖r‖²,  r = ( sqrt(w_i) (s_T(σ_i) − 1),  sqrt(100 / (201 T)) (what leaves [0, 1.3] of s_t(x_j)) )

for the singular values σ_i of one part momentum and three parts Gaussian matrix, and 201 points x_j of [0, 1]: the loss
of `calibration`, which searches from many starts on the host. From a near start Levenberg's and Marquardt's damped
Gauss-Newton is enough, and takes all matrices at once. With the Jacobian J, carried along the steps by the chain rule,

    (JᵀJ + μ diag JᵀJ) δ = −Jᵀ r        θ + δ is kept where it lowers ‖r‖², and μ falls; elsewhere μ grows
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from spectune.optimizers.polar.normalization import normalised
from spectune.optimizers.rules.calibration import LARGEST_ITERATE, NUM_GRID_POINTS, PENALTY, gaussian_spectrum

MIX: Final = (0.25, 0.75)  # one part momentum, three parts Gaussian, as ROOT's constants are said to be
ITERATIONS: Final = 20  # from the classic triple; ten do from the fit before
DECIMALS: Final = 6  # a batch and a matrix alone round their sums differently; this far they agree
FIRST_DAMPING: Final = 1e-3
DAMPING_FALLS: Final = 1 / 5
DAMPING_GROWS: Final = 3.0


class _Point(NamedTuple):
    """Where every fit stands: θ [fits, 3], ‖r‖² [fits], Jᵀr [fits, 3], JᵀJ [fits, 3, 3]."""

    triple: Tensor
    loss: Tensor
    gradient: Tensor
    curvature: Tensor


def refitted(matrix: Tensor, triple: Tensor, *, steps: int | Tensor) -> Tensor:
    """Fit each triple to its own matrix, from where it is.

    Args:
        matrix: Shape [fits, rows, columns].
        triple: Shape [fits, 1, 3], near enough to descend from: the published ones are.
        steps: Iterations that the triples are for; an integer tensor [fits] gives each its own.

    Returns:
        Shape and dtype of `triple`, rounded to six decimals. Never a higher loss than before, but for that rounding; a
        matrix that is zero or not finite leaves its triple as it is. Costs the eigenvalues of every X Xᵀ in float64.
    """
    rows, columns = matrix.shape[-2:]
    unit = normalised(matrix.double() if rows <= columns else matrix.double().mT, eps=0.0, safety=1.0)
    usable = unit.isfinite().all(dim=(-2, -1)) & unit.any(dim=-1).any(dim=-1)
    unit = torch.where(usable[:, None, None], unit, 0.0)  # eigvalsh would raise for all
    recorded = torch.linalg.eigvalsh(unit @ unit.mT).clamp(0, 1).sqrt()
    gaussian = gaussian_spectrum((rows, columns)).to(matrix.device).expand(len(matrix), -1)
    sources = [
        (share / spectrum.shape[-1], spectrum) for share, spectrum in zip(MIX, (recorded, gaussian), strict=True)
    ]
    weight = torch.cat([torch.full_like(spectrum, each) for each, spectrum in sources], dim=-1)
    sigma = torch.cat([spectrum for _, spectrum in sources], dim=-1)
    found, _ = fitted(triple.squeeze(-2), sigma, weight, steps=steps)
    return torch.where(usable[:, None, None], found.round(decimals=DECIMALS).unsqueeze(-2).to(triple.dtype), triple)


def fitted(
    start: Tensor, sigma: Tensor, weight: Tensor, *, steps: int | Tensor, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor]:
    """Descend from a start, each fit for itself.

    Args:
        start: Shape [fits, 3].
        sigma: Finite singular values in [0, 1], shape [fits, count].
        weight: Of each in the sum of squares, same shape.
        steps: As for `refitted`.
        iterations: How often a better point is looked for.

    Returns:
        The triples [fits, 3] and ‖r‖² there [fits], in float64.
    """
    counts = torch.as_tensor(steps, device=sigma.device).expand(len(start))
    most = int(steps.max()) if isinstance(steps, Tensor) else steps
    sigma, root = sigma.double(), weight.double().sqrt()

    def stand(triple: Tensor) -> _Point:
        residual, jacobian = _residuals(triple, sigma, root, counts, most)
        gradient = (jacobian.mT @ residual.unsqueeze(-1)).squeeze(-1)
        return _Point(triple, residual.square().sum(dim=-1), gradient, jacobian.mT @ jacobian)

    here = stand(start.double())
    damping = torch.full_like(here.loss, FIRST_DAMPING)
    for _ in range(iterations):
        there = stand(here.triple + _stride(here, damping))
        better = there.loss < here.loss  # NaN is not
        here = _chosen(better, there, here)
        damping = (damping * torch.where(better, DAMPING_FALLS, DAMPING_GROWS)).clamp(1e-12, 1e12)
    return here.triple, here.loss


def _chosen(first: Tensor, one: _Point, other: _Point) -> _Point:
    return _Point(
        triple=torch.where(first[:, None], one.triple, other.triple),
        loss=torch.where(first, one.loss, other.loss),
        gradient=torch.where(first[:, None], one.gradient, other.gradient),
        curvature=torch.where(first[:, None, None], one.curvature, other.curvature),
    )


def _stride(point: _Point, damping: Tensor) -> Tensor:
    """Return δ; the last term keeps the matrix regular where all singular values are zero."""
    diagonal = point.curvature.diagonal(dim1=-2, dim2=-1)
    damped = point.curvature + torch.diag_embed(damping[:, None] * diagonal + 1e-12)
    stride: Tensor = torch.linalg.solve_ex(damped, -point.gradient).result
    return stride


def _residuals(triple: Tensor, sigma: Tensor, root: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return r [fits, residuals] and J [fits, residuals, 3]; a fit that took its steps stands still."""
    grid = torch.linspace(0, 1, NUM_GRID_POINTS, dtype=sigma.dtype, device=sigma.device)
    s, inside = torch.cat([sigma, grid.expand(len(sigma), -1)], dim=-1), sigma.shape[-1]
    slopes = s.new_zeros(*s.shape, 3)
    residuals, jacobians = [], []
    for step in range(most):
        goes_on = (step < counts)[:, None]
        s, slopes = _stepped(s, slopes, triple, goes_on)
        above, below = s[:, inside:] - LARGEST_ITERATE, -s[:, inside:]
        share = (PENALTY / (NUM_GRID_POINTS * counts[:, None])).sqrt() * goes_on
        residuals.append(share * (above.relu() + below.relu()))
        leaves = share * ((above > 0).to(s.dtype) - (below > 0).to(s.dtype))
        jacobians.append(leaves.unsqueeze(-1) * slopes[:, inside:])
    residual = torch.cat([root * (s[:, :inside] - 1), *residuals], dim=-1)
    jacobian = torch.cat([root.unsqueeze(-1) * slopes[:, :inside], *jacobians], dim=1)
    return residual, jacobian


def _stepped(s: Tensor, slopes: Tensor, triple: Tensor, goes_on: Tensor) -> tuple[Tensor, Tensor]:
    """Take one step of s and of ∂s/∂θ where the fit goes on."""
    a, b, c = triple[..., None].unbind(dim=-2)
    square = s.square()
    slope = a + square * (3 * b + 5 * c * square)
    own = torch.stack([s, s * square, s * square.square()], dim=-1)
    onward = s * (a + square * (b + c * square))
    return torch.where(goes_on, onward, s), torch.where(goes_on[..., None], slope.unsqueeze(-1) * slopes + own, slopes)
