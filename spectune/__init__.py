"""Spectune: hyperparameter search for spectral optimizers.

`spectune.optimizers` needs torch alone. `spectune.search_spaces`, `spectune.trainers` and `spectune.service` are the
rest. In a checkout these four are links to the folders beside this one.
"""
