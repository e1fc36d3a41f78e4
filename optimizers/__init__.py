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

from spectune.optimizers.adamw import AdamWRule
from spectune.optimizers.catalog import OPTIMIZERS, OptimizerEntry, build_optimizer
from spectune.optimizers.gradient_descent import GradientDescentRule
from spectune.optimizers.hyperparameters import Hyperparameter
from spectune.optimizers.muon import Muon, MuonRule
from spectune.optimizers.outliers import percentile_threshold, suppress_outliers
from spectune.optimizers.parameter_groups import ParameterSplit, split
from spectune.optimizers.polar import polar_factor
from spectune.optimizers.polargrad import PolarGrad, PolarGradRule
from spectune.optimizers.root import Root, RootRule
from spectune.optimizers.solvers import SOLVERS
from spectune.optimizers.spectral import SpectralRule, apply_update
from spectune.optimizers.spectral_descent import SpectralDescent, SpectralDescentRule
from spectune.optimizers.spectral_optimizer import SpectralOptimizer

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
