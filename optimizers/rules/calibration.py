"""Fit the triples of a quintic iteration to the spectra that it will meet: ROOT's AdaNewton, for any shape.

    minimise over (a, b, c)    Σ_k w_k mean_i (p∘…∘p(σ_i) − 1)²  +  penalty where an iterate leaves [0, 1.3]

with p(s) = a s + b s³ + c s⁵ and singular values σ of matrices of unit Frobenius norm, from two sources k: recorded
momenta and Gaussian matrices, one part to three (He et al., arXiv 2511.20626; neither the paper nor its code gives the
loss, so this one is ours, and so are triples of their own for each step). The Gaussian spectrum is not drawn but taken
from its limit, the quantiles of Marchenko and Pastur: a fit is deterministic and needs no decomposition of its own.

    recorded = record_momenta(optimizer)
    triples = calibrate((512, 2048), momenta=momenta_of_shape(recorded, (512, 2048)))
    Muon(parameters, solver="adanewton", ns_coefficients=triples)
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from spectune.optimizers.parameters.matrix_views import matrices_of
from spectune.optimizers.polar.coefficients import (
    CLASSIC,
    DEFAULT_STEPS,
    MAX_STEPS,
    ROOT_TRIPLES,
    Triple,
    polar_express_triples,
    repeated,
)

VERSION: Final = 1  # of the fit: another objective or another search takes another number, and so other files
LARGEST_ITERATE: Final = 1.3
PENALTY: Final = 100.0
NUM_GRID_POINTS: Final = 201
NUM_QUANTILES: Final = 256
STARTS: Final[tuple[Triple, ...]] = (CLASSIC, *ROOT_TRIPLES.values())

Source: TypeAlias = tuple[float, Tensor]  # its weight, its singular values


def calibrate(
    shape: tuple[int, int],
    *,
    momenta: Iterable[Tensor] | None = None,
    mix: tuple[float, float] = (1, 3),
    steps: int = DEFAULT_STEPS,
    per_step: bool = False,
    use_cache: bool = True,
) -> tuple[Triple, ...]:
    """Fit coefficients for matrices of a shape.

    Args:
        shape: Rows and columns; the orientation does not matter.
        momenta: Matrices of that shape, in either orientation, or batches of them; None for Gaussian spectra alone.
            Zero matrices say nothing and are passed over.
        mix: Parts of the momenta and of the Gaussian spectra in the loss. Without momenta it is not read.
        steps: Iterations that the coefficients are for.
        per_step: Whether every step has a triple of its own; that fits better, and is not ROOT's.
        use_cache: Whether to look the fit up on disk, and to leave it there: by shape, mix, steps, version and momenta.

    Returns:
        One triple, or one a step: what `polar_factor` takes as `coefficients`. The search starts from the classic
        triple and from the published ones of ROOT, and what it gives is never worse, penalty included. Over Gaussian
        spectra alone the mean is 0.035 at 2048² (classic 0.050, published 0.039) and 2e-4 at 2048×8192 (0.034, 0.0015);
        a fit takes a second or two.

    Raises:
        ValueError: An impossible shape, mix or number of steps; momenta of another shape, or not finite, or all zero.
        OSError: The cache cannot be written.
    """
    _check(shape, mix, steps)
    sources = _sources(shape, None if momenta is None else list(momenta), mix)
    path = cache_folder() / f"{_key(shape, mix, steps, per_step, sources)}.json"
    known = _read(path, steps if per_step else 1) if use_cache else None
    if known is not None:
        path.touch()  # so it is the last one that was asked for
        return known
    triples = _fit(sources, steps, per_step)
    if use_cache:
        _write(path, {"shape": shape, "mix": mix, "steps": steps, "version": VERSION, "triples": triples})
    return triples


def calibrated_triples(shape: tuple[int, int], *, steps: int = DEFAULT_STEPS) -> tuple[Triple, ...]:
    """Read the fit for a shape that was last made or asked for with `calibrate`, whatever its mix, from disk.

    Returns:
        One triple a step.

    Raises:
        ValueError: There is none; it says which command makes one.
    """
    kinds = ((_name(shape, steps, per_step=False), 1), (_name(shape, steps, per_step=True), steps))
    fits = [(path, number) for name, number in kinds for path in cache_folder().glob(f"{name}-*.json")]
    for path, number in sorted(fits, key=lambda fit: (fit[0].stat().st_mtime_ns, fit[0].name), reverse=True):
        found = _read(path, number)
        if found is not None:
            return repeated(found, steps)
    rows, columns = shape
    command = f"spectune calibrate --shape {rows}x{columns}" + ("" if steps == DEFAULT_STEPS else f" --steps {steps}")
    raise ValueError(f"no coefficients are calibrated for a shape, `{command}` makes them: got {rows}x{columns}")


def calibration_loss(
    triples: Sequence[Triple],
    shape: tuple[int, int],
    *,
    momenta: Iterable[Tensor] | None = None,
    mix: tuple[float, float] = (1, 3),
    steps: int = DEFAULT_STEPS,
) -> float:
    """Return the mean (p∘…∘p(σ) − 1)² of the mix, without the penalty: what tells one set of triples from another."""
    _check(shape, mix, steps)
    sources = _sources(shape, None if momenta is None else list(momenta), mix)
    coefficients = torch.tensor(triples, dtype=torch.float64, device="cpu")
    return sum(
        weight * (_composed(sigma, coefficients, steps)[-1] - 1).square().mean().item() for weight, sigma in sources
    )


def record_momenta(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy the momentum of every matrix of a running optimizer to the CPU, by the parameter's name.

    A parameter without a name is called by its group and its place in it, as `0.3`; the blocks of one that is split
    have their place after the name, as `qkv[0]`. Nothing of the optimizer changes; a parameter that has not taken a
    step, and one that is not a matrix, is passed over.
    """
    recorded = {}
    for number, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"{number}.{place}" for place in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is None:
                continue
            matrices = matrices_of(group, momentum)
            for place, matrix in enumerate(matrices):
                if matrix.ndim == 2:
                    key = name if len(matrices) == 1 else f"{name}[{place}]"
                    recorded[key] = matrix.detach().to("cpu", copy=True)
    return recorded


def momenta_of_shape(recorded: Mapping[str, Tensor], shape: tuple[int, int]) -> list[Tensor]:
    """Pick the momenta of a shape, in either orientation."""
    return [momentum for momentum in recorded.values() if sorted(momentum.shape) == sorted(shape)]


def gaussian_spectrum(shape: tuple[int, int]) -> Tensor:
    """Return quantiles of the singular values of a Gaussian matrix of unit Frobenius norm, float64, ascending.

    min(rows, columns) of them, at most 256, in the middle of equal shares of the limit's mass (Marchenko, Pastur 1967).
    The mean of their squares times min(rows, columns) is 1 to 1e-2; for squares of 16 and more a sorted random spectrum
    differs from them by about 1 / min(rows, columns) of the largest.
    """
    fewer, ratio = min(shape), min(shape) / max(shape)
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    angle = torch.linspace(0, torch.pi / 2, 20001, dtype=torch.float64, device="cpu")
    square = low + (high - low) * angle.sin().square()
    # The density sqrt((high − λ)(λ − low)) / λ in the angle; at low = 0 it is 2 high cos² there, without a pole.
    density = (angle.sin() * angle.cos()).square() / square.clamp(min=1e-300)
    density[0] = density[1]
    mass = torch.cumulative_trapezoid(density, angle)
    count = min(fewer, NUM_QUANTILES)
    shares = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    places = torch.searchsorted(mass / mass[-1], shares).clamp(max=len(mass) - 1)
    spectrum: Tensor = (square[places + 1] / fewer).sqrt()
    return spectrum


def cache_folder() -> Path:
    """Return the folder of the fits: in SPECTUNE_CACHE_DIR, else in ~/.cache/spectune."""
    root = os.environ.get("SPECTUNE_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".cache" / "spectune") / "coefficients"


def _check(shape: tuple[int, int], mix: tuple[float, float], steps: int) -> None:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"a shape is two positive whole numbers, rows and columns: got {tuple(shape)}")
    if len(mix) != 2 or min(mix) < 0 or not 0 < sum(mix) < float("inf"):
        raise ValueError(f"a mix is two parts, of momenta and of Gaussian spectra, not both zero: got {tuple(mix)}")
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps must lie between 1 and {MAX_STEPS}: got {steps}")


def _sources(shape: tuple[int, int], momenta: list[Tensor] | None, mix: tuple[float, float]) -> list[Source]:
    gaussian = gaussian_spectrum(shape)
    if momenta is None:
        return [(1.0, gaussian)]
    spectra = torch.cat(
        [_spectra(momentum, shape) for momentum in momenta] or [torch.empty(0, dtype=torch.float64, device="cpu")]
    )
    if not len(spectra):
        raise ValueError(f"a fit to momenta needs one that is not zero: got {len(momenta)} momenta")
    return [(mix[0] / sum(mix), spectra), (mix[1] / sum(mix), gaussian)]


def _spectra(momentum: Tensor, shape: tuple[int, int]) -> Tensor:
    if momentum.ndim < 2 or sorted(momentum.shape[-2:]) != sorted(shape):
        raise ValueError(f"momenta must have the shape {tuple(shape)}: got {tuple(momentum.shape)}")
    if not momentum.isfinite().all():
        raise ValueError(f"momenta must be finite: got {int((~momentum.isfinite()).sum())} entries that are not")
    sigma = torch.linalg.svdvals(momentum.detach().double().cpu()).reshape(-1, min(shape))
    norm = sigma.square().sum(dim=-1, keepdim=True).sqrt()
    spectra: Tensor = (sigma / norm)[norm.squeeze(-1) > 0].flatten()
    return spectra


def _fit(sources: list[Source], steps: int, per_step: bool) -> tuple[Triple, ...]:
    """Descend from every start, and give the best point met anywhere: at worst a start."""
    grid = torch.linspace(0, 1, NUM_GRID_POINTS, dtype=torch.float64, device="cpu")

    def objective(coefficients: Tensor) -> Tensor:
        loss = sum(
            (w * (_composed(sigma, coefficients, steps)[-1] - 1).square().mean() for w, sigma in sources),
            torch.zeros((), device="cpu"),
        )
        path = torch.stack(_composed(grid, coefficients, steps))
        return loss + PENALTY * ((path - LARGEST_ITERATE).relu() + (-path).relu()).square().mean()

    found = min((_descend(objective, [start]) for start in STARTS), key=lambda pair: pair[0])
    if per_step:
        starts = [list(found[1]) * steps, list(polar_express_triples(steps))]
        found = min((_descend(objective, start) for start in starts), key=lambda pair: pair[0])
    return found[1]


def _descend(objective: Callable[[Tensor], Tensor], start: Sequence[Triple]) -> tuple[float, tuple[Triple, ...]]:
    coefficients = torch.tensor(start, dtype=torch.float64, device="cpu", requires_grad=True)
    search = torch.optim.LBFGS([coefficients], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12)
    best = (float("inf"), tuple(start))

    def closure() -> Tensor:
        nonlocal best
        search.zero_grad()
        loss = objective(coefficients)
        if loss.item() < best[0]:  # NaN is not
            best = (loss.item(), tuple((row[0], row[1], row[2]) for row in coefficients.tolist()))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
    return best


def _composed(sigma: Tensor, coefficients: Tensor, steps: int) -> list[Tensor]:
    """Return the singular values after each step; the last triple stands for every further step."""
    path = []
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        square = sigma.square()
        sigma = sigma * (a + square * (b + c * square))
        path.append(sigma)
    return path


def _key(shape: tuple[int, int], mix: tuple[float, float], steps: int, per_step: bool, sources: list[Source]) -> str:
    parts = _name(shape, steps, per_step=per_step)
    if len(sources) == 1:
        return f"{parts}-gaussian"
    spectra = hashlib.sha256(sources[0][1].numpy().tobytes()).hexdigest()[:16]
    return f"{parts}-mix{mix[0]:g}to{mix[1]:g}-{spectra}"


def _name(shape: tuple[int, int], steps: int, *, per_step: bool) -> str:
    return f"{min(shape)}x{max(shape)}-steps{steps}{'-each' if per_step else ''}-v{VERSION}"


def _read(path: Path, num_triples: int) -> tuple[Triple, ...] | None:
    """Read a fit; None where there is none, or where the file is damaged and so must be made again."""
    try:
        rows = json.loads(path.read_text())["triples"]
        triples = tuple((float(a), float(b), float(c)) for a, b, c in rows)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return triples if len(triples) == num_triples else None


def _write(path: Path, document: dict[str, Any]) -> None:
    """Put the file there whole: two processes that fit the same shape at once do not spoil each other's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(document, file)
    Path(file.name).replace(path)
