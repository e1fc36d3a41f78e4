"""Identifiers: the one place that formats them. Nobody else does string work on names.

campaign id   root-percentile-3f9a0c         slug of the name, and a suffix that makes it unique
run name      root/00017                     what a tracker shows inside the campaign's own run
"""

from __future__ import annotations

import re
import unicodedata

_LONGEST_SLUG = 60


def slug(name: str) -> str:
    """Reduce a name to lower-case ASCII words joined by hyphens; empty where none is left."""
    ascii_name = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^a-z0-9]+", "-", ascii_name)
    return words.strip("-")[:_LONGEST_SLUG].strip("-")


def campaign_id(name: str, *, suffix: str) -> str:
    """Make a campaign's id.

    Args:
        name: What the user called it.
        suffix: What makes the id unique (random or from a clock), injected; letters and digits.
    """
    assert re.fullmatch(r"[a-z0-9]+", suffix), f"a suffix is lower-case letters and digits: got {suffix!r}"
    return f"{slug(name) or 'campaign'}-{suffix}"


def trial_number(*, arm: int, point: int, seed_index: int, num_arms: int, seeds: int) -> int:
    """Number a trial within its campaign, whatever order the trials are created in.

    Points go round the arms (all arms' first points come before any second one) and the seeds of a point are
    neighbours, so that numbers grow with the points of each arm.

    Args:
        arm: Index of the arm.
        point: Index of the point within its arm.
        seed_index: Which of the point's seeds.
        num_arms: How many arms the campaign has.
        seeds: How many seeds each point has.
    """
    return (point * num_arms + arm) * seeds + seed_index


def final_number(*, arm: int, rank: int, seed_index: int, num_arms: int, seeds: int, num_search_trials: int) -> int:
    """Number a trial of the finals: behind every trial that the search could have.

    Args:
        arm: Index of the arm.
        rank: The point's rank within its arm, 0 for the best.
        seed_index: Which of the finals' seeds, from 0.
        num_arms: How many arms the campaign has.
        seeds: How many seeds the finals have.
        num_search_trials: How many trials the search has at most.
    """
    return num_search_trials + (rank * num_arms + arm) * seeds + seed_index


def audit_number(of: int, *, first: int) -> int:
    """Number the audit of a stopped trial: behind search and finals, which end before `first`."""
    return first + of


def point_index(number: int, *, num_arms: int, seeds: int) -> int:
    """Return which point of its arm a trial belongs to, from what `trial_number` gave."""
    return number // (num_arms * seeds)


def run_name(arm: str, number: int) -> str:
    """Name a trial's run within its campaign's own."""
    return f"{arm}/{number:05d}"
