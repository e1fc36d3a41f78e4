"""Spectral optimizers: mathematics on torch alone, usable in any training script.

muon, polargrad, root     one rule each: its idea, its stages, its torch.optim class
spectral_descent          the theory's Muon: exact, without momentum
spectral                  the loop they share, on tensors with any leading dimensions
spectral_optimizer        its torch.optim face: groups, state, equal shapes stacked
planned_writes            the second half of its step
loaded_state              states of older versions and of torch; parameter_checks: what a parameter must be
arithmetic, foreach       what switches and lists do to numbers; scratch: memory kept between calls
adamw                     for the parameters that are not matrices
gradient_descent          the theory's baseline
momentum, outliers        stages
polar                     the polar factor, by any of the solvers
quintic, coefficients     polynomial iterations, and their numbers; own_triples: numbers of each matrix's own
half_products             products in bfloat16 on every processor
minimax                   where our own of these numbers come from; rebuild_coefficients prints them
rational, qdwh, zolotarev rational iterations, to the accuracy of the dtype; exact, by SVD
calibration, triple_fit   numbers fitted to a shape and to its momenta, beforehand and while training
parameter_groups          which parameters are matrices for us, without output_heads; matrix_views: as which matrices
hyperparameters, catalog  what may be set, and the optimizers by name
diagnostics               what to watch
spelling                  what an unknown name was meant to be
"""

from __future__ import annotations

from spectune.optimizers.catalog import OPTIMIZERS, OptimizerEntry, build_optimizer
from spectune.optimizers.hyperparameters import Hyperparameter
from spectune.optimizers.parameters.parameter_groups import ParameterSplit, split
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS
from spectune.optimizers.rules.adamw import AdamWRule
from spectune.optimizers.rules.gradient_descent import GradientDescentRule
from spectune.optimizers.rules.muon import Muon, MuonRule
from spectune.optimizers.rules.polargrad import PolarGrad, PolarGradRule
from spectune.optimizers.rules.root import Root, RootRule
from spectune.optimizers.rules.spectral import SpectralRule, apply_update
from spectune.optimizers.rules.spectral_descent import SpectralDescent, SpectralDescentRule
from spectune.optimizers.rules.spectral_optimizer import SpectralOptimizer
from spectune.optimizers.stages.outliers import percentile_threshold, suppress_outliers

__all__ = [
    "OPTIMIZERS",
    "SOLVERS",
    "AdamWRule",
    "GradientDescentRule",
    "Hyperparameter",
    "Muon",
    "MuonRule",
    "OptimizerEntry",
    "ParameterSplit",
    "PolarGrad",
    "PolarGradRule",
    "Root",
    "RootRule",
    "SpectralDescent",
    "SpectralDescentRule",
    "SpectralOptimizer",
    "SpectralRule",
    "apply_update",
    "build_optimizer",
    "percentile_threshold",
    "polar_factor",
    "split",
    "suppress_outliers",
]
