"""Processes that outlive a service: a Ray, an MLflow server; and how what runs is logged."""
