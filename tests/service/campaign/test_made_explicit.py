"""A document names what its numbers depend on, and older documents keep the meaning that they were accepted with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spectune.optimizers import OPTIMIZERS, SOLVERS, polar_factor
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.made_explicit import DEFAULT_SOLVERS, completed_config
from spectune.service.campaign.specification.specification import parse, restore

MADE_EXPLICIT = ("compute_dtype", "adamw_lr_ratio", "decay_vectors")


def arm_of(document: dict[str, Any], catalog: Catalog, **changes: Any) -> dict[str, Any]:
    document = {**document, "arms": [{"optimizer": "muon", "space": {"lr": {"fixed": 0.1}}, **changes}]}
    document.pop("initial_points")
    return dict(parse(document, catalog=catalog).document()["arms"][0]["fixed"])


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, "float32"),
        ({"precision": "bf16"}, "float32"),
        ({"precision": "fp64"}, "float64"),
        ({"resources": {"gpus": 1}}, "bfloat16"),
        ({"resources": {"gpus": 0.5}, "precision": "fp64"}, "float64"),
    ],
)
def test_a_document_names_the_arithmetic_of_its_device(
    document: dict[str, Any], catalog: Catalog, changes: dict[str, Any], dtype: str
) -> None:
    fixed = arm_of({**document, **changes}, catalog)
    assert fixed == {"adamw_lr_ratio": 0.1, "decay_vectors": True, "compute_dtype": dtype}


@pytest.mark.parametrize(
    ("fixed", "space", "dtype"),
    [
        ({"solver": "svd"}, {}, "float32"),
        ({"solver": "minimax"}, {}, "float16"),
        ({}, {"solver": {"choice": ["newton_schulz", "polar_express"]}}, "bfloat16"),
        ({}, {"solver": {"choice": ["newton_schulz", "svd"]}}, "auto"),
        (
            {},
            {"solver": {"choice": ["minimax", "gram"], "when": {"percentile": 1.0}}, "percentile": {"fixed": 1.0}},
            "auto",
        ),
    ],
)
def test_on_a_gpu_the_arithmetic_is_the_solvers(fixed: dict[str, Any], space: dict[str, Any], dtype: str) -> None:
    document = {
        "name": "x",
        "task": {"name": "matrix_completion", "steps": 4},
        "objective": {"metric": "loss"},
        "arms": [{"optimizer": "root", "space": {"lr": {"fixed": 0.1}, **space}, "fixed": fixed}],
        "search": {"points": 1},
        "resources": {"gpus": 1, "workers": 1},
    }
    catalog = Catalog(**{**vars(_installed()), "num_gpus": 1})
    assert parse(document, catalog=catalog).arms[0].fixed["compute_dtype"] == dtype


def _installed() -> Catalog:
    from spectune.service.campaign.specification.catalog import installed_catalog

    return installed_catalog()


def test_what_a_document_says_stays(document: dict[str, Any], catalog: Catalog) -> None:
    said = {"compute_dtype": "bfloat16", "adamw_lr": 0.01, "decay_vectors": False}
    assert arm_of(document, catalog, fixed=said) == said
    fixed = arm_of(document, catalog, space={"lr": {"fixed": 0.1}, "adamw_lr_ratio": {"uniform": [0.1, 1.0]}})
    assert "adamw_lr_ratio" not in fixed
    assert arm_of(document, catalog, optimizer="adamw") == {}


def test_an_older_document_is_completed_with_what_it_meant(document: dict[str, Any], catalog: Catalog) -> None:
    specification = parse(document, catalog=catalog)
    older = specification.document()
    for arm in older["arms"]:
        for name in MADE_EXPLICIT:
            arm["fixed"].pop(name, None)
    assert restore(older) == specification
    assert restore(specification.document()) == specification


@pytest.mark.parametrize(("solver", "l0"), [("qdwh", 2e-7), ("zolo_pd", 2e-7), ("svd", None)])
def test_an_older_document_keeps_the_lower_end_of_its_solver(solver: str, l0: float | None) -> None:
    document = {
        "name": "x",
        "task": {"name": "matrix_completion", "steps": 4},
        "objective": {"metric": "loss"},
        "arms": [{"optimizer": "polargrad", "space": {"lr": {"fixed": 0.1}}, "fixed": {"solver": solver}}],
        "search": {"points": 1},
    }
    canonical = parse(document).document()
    assert "l0" not in restore(canonical).arms[0].fixed
    for name in MADE_EXPLICIT:
        del canonical["arms"][0]["fixed"][name]
    assert restore(canonical).arms[0].fixed.get("l0") == l0


def test_a_trial_whose_rate_counts_only_beside_another_value_keeps_the_old_ratio() -> None:
    config = {"lr": 0.1, "solver": "newton_schulz"}  # the space holds `adamw_lr` when solver is svd
    completed = completed_config("polargrad", config, precision="fp32", on_gpu=True)
    assert completed == {**config, "adamw_lr_ratio": 0.1, "decay_vectors": True, "compute_dtype": "bfloat16"}
    given = {"lr": 0.1, "solver": "svd", "adamw_lr": 0.01}
    assert "adamw_lr_ratio" not in completed_config("polargrad", given, precision="fp32", on_gpu=False)
    assert completed_config("adamw", {"lr": 0.1}, precision="fp32", on_gpu=False) == {"lr": 0.1}


def test_what_is_named_exists_and_is_what_auto_was_on_a_cpu() -> None:
    spectral = {name for name, entry in OPTIMIZERS.items() if "solver" in entry.hyperparameters}
    assert set(DEFAULT_SOLVERS) == spectral
    for name, solver in DEFAULT_SOLVERS.items():
        assert OPTIMIZERS[name].hyperparameters["solver"].default == solver
        for key, value in completed_config(name, {}, precision="fp32", on_gpu=False).items():
            assert OPTIMIZERS[name].hyperparameters[key].problem_with(value) is None
    generator = torch.Generator().manual_seed(0)
    for solver in SOLVERS:
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.float32), ("fp64", torch.float64)):
            matrix = torch.randn(6, 9, generator=generator).to(dtype)
            named = completed_config("muon", {"solver": solver}, precision=precision, on_gpu=False)["compute_dtype"]
            assert torch.equal(
                polar_factor(matrix, solver=solver, compute_dtype=named), polar_factor(matrix, solver=solver)
            )
