"""Stopping rules: which trials of an arm are stopped early."""
