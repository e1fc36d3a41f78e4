"""Verdicts in sentences: which arm is better, or what it would take to tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spectune.service.campaign.analysis.arm_comparison import ArmComparison


def verdict_lines(verdicts: Iterable[ArmComparison], *, names: Sequence[str]) -> list[str]:
    """Say in a sentence per pair which arm is better, or what it would take to tell.

    Args:
        verdicts: What the finals say.
        names: Of all arms, by their index.
    """
    lines = []
    for verdict in verdicts:
        first, second = (names[arm] for arm in verdict.arms)
        if verdict.p_value is None or verdict.difference is None:
            lines.append(f"{first} and {second}: {verdict.num_seeds} common seeds are too few to compare")
            continue
        evidence = (
            f"p = {verdict.p_value:.2g} over {verdict.num_seeds} common seeds, Holm-corrected; "
            f"{first} ahead on {verdict.num_wins}"
        )
        if verdict.better is not None:
            winner, loser = (first, second) if verdict.better == verdict.arms[0] else (second, first)
            lines.append(f"{winner} is better than {loser} by {abs(verdict.difference):.3g} ({evidence})")
            continue
        needed = verdict.seeds_needed
        more = "more than 10000 seeds" if needed is None else f"about {needed} seeds"
        lines.append(
            f"{first} and {second} cannot be told apart ({evidence}): a difference of {verdict.detectable:.2g} would "
            f"probably have shown; the one seen, {abs(verdict.difference):.2g}, takes {more}"
        )
    return lines
