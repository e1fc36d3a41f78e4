"""`spectune calibrate`: coefficients of the orthogonalising iteration for one shape, fitted and kept on disk."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from torch import Tensor

MomentaOption = Annotated[
    Path | None,
    typer.Option("--momenta", metavar="FILE", help="What torch.save made of record_momenta(optimizer).", exists=True),
]


def calibrate(
    shape: Annotated[str, typer.Option("--shape", metavar="ROWSxCOLUMNS", help="As 512x2048.")],
    momenta: MomentaOption = None,
    mix: Annotated[str, typer.Option("--mix", metavar="A:B", help="Parts of momenta and of Gaussian spectra.")] = "1:3",
    steps: Annotated[int, typer.Option("--steps", help="Iterations that the coefficients are for.")] = 5,
    per_step: Annotated[bool, typer.Option("--per-step", help="Fit a triple for each step.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit the coefficients of Newton-Schulz to a shape, and to recorded momenta of it."""
    from spectune.optimizers.polar.coefficients import CLASSIC
    from spectune.optimizers.rules.calibration import (
        cache_folder,
        calibration_loss,
    )  # torch takes seconds, and only this verb needs it
    from spectune.optimizers.rules.calibration import calibrate as fit

    rows, columns = _two_numbers(shape, "x", "--shape", kind=int)
    parts = _two_numbers(mix, ":", "--mix", kind=float)
    recorded = None if momenta is None else _recorded(momenta, (rows, columns))
    try:
        triples = fit((rows, columns), momenta=recorded, mix=parts, steps=steps, per_step=per_step)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    losses = {
        name: calibration_loss(each, (rows, columns), momenta=recorded, mix=parts, steps=steps)
        for name, each in (("fitted", triples), ("classic", (CLASSIC,)))
    }
    if as_json:
        print(json.dumps({"shape": [rows, columns], "steps": steps, "triples": triples, "mean_square_error": losses}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for a, b, c in triples:
        console.print(f"({a:.6g}, {b:.6g}, {c:.6g})")
    console.print(f"mean (σ − 1)² after {steps} steps: {losses['fitted']:.3g}; classic triple {losses['classic']:.3g}")
    console.print(f"kept in {cache_folder()}", markup=False)


def _two_numbers(text: str, separator: str, option: str, *, kind: type[Any]) -> tuple[Any, Any]:
    number = r"(\d+)" if kind is int else r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(number + re.escape(separator) + number, text.strip())
    if found is None:
        raise typer.BadParameter(f"two numbers with {separator!r} between them: got {text!r}", param_hint=option)
    return kind(found[1]), kind(found[2])


def _recorded(path: Path, shape: tuple[int, int]) -> list[Tensor]:
    import torch

    from spectune.optimizers.rules.calibration import momenta_of_shape

    hint = "--momenta"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise typer.BadParameter(f"not a file of tensors: got {str(path)!r}", param_hint=hint) from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise typer.BadParameter(f"a dictionary of tensors by name: got {type(content).__name__}", param_hint=hint)
    chosen = momenta_of_shape(content, shape)
    if not chosen:
        shapes = sorted({tuple(value.shape) for value in content.values()})
        raise typer.BadParameter(f"no momentum of shape {shape}: got {shapes}", param_hint=hint)
    return chosen
