"""Print the table `coefficients.MINIMAX`, derived anew: `python -m spectune.optimizers.polar.rebuild_coefficients`."""

from __future__ import annotations

from spectune.optimizers.polar.coefficients import MINIMAX, MINIMAX_LOWEST
from spectune.optimizers.polar.minimax import greedy_composition


def minimax_table() -> str:
    """Return the rows as they stand in `coefficients.py`."""
    return "\n".join(f"    {row}," for row in greedy_composition(MINIMAX_LOWEST, len(MINIMAX)))


if __name__ == "__main__":
    print(minimax_table())
