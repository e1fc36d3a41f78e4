"""Print the table `coefficients.MINIMAX`, derived anew: `python -m spectune.optimizers.rebuild_coefficients`."""

from __future__ import annotations

from spectune.optimizers.coefficients import MINIMAX, MINIMAX_LOWEST
from spectune.optimizers.minimax import greedy_composition


def minimax_table() -> str:
    """Give the rows as they stand in `coefficients.py`."""
    return "\n".join(f"    {row}," for row in greedy_composition(MINIMAX_LOWEST, len(MINIMAX)))


if __name__ == "__main__":
    print(minimax_table())
