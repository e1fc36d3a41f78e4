"""Measurements by hand, on CPU and CUDA alike; each file is a command that prints a table and can write JSON."""
