"""Stages of the loop that all spectral optimizers share: momentum, outliers, the write."""
