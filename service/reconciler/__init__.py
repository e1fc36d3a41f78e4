"""The reconciler: compares what was asked for with what runs, and repairs the difference."""

from spectune.service.reconciler.loop import Reconciler

__all__ = ["Reconciler"]
