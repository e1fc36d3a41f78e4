"""Tracking: projections of the ledger into places where people look at runs."""
