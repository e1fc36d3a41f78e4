"""What is run once an arm's search has ended: its finals, and the audit of its stopping rule.

**Finals.** The best points of the search are the luckiest as well, so each is run again to the end with seeds that the
search has not seen; the seeds are the same for every arm, hence arms are compared in pairs. They have the seed indices
behind those of the search.

**Audit.** Some of the trials that the rule stopped, those nearest to the cut, are run to the end all the same, with
their own seeds: would one of them have won? At each step at which trials were stopped they are ordered by their values
there, the best first, and steps take turns, the earliest first.

Both are functions of the records alone, so that asking again after a crash gives what is still missing and no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.model import naming
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Phase, TrialRecord
from spectune.service.campaign.specification.specification import Specification


@dataclass(frozen=True)
class ExtraTrial:
    """A trial that the search did not ask for.

    Attributes:
        number: Its number within the campaign.
        arm: Index of its arm.
        point: Index of its point, one of the search's.
        seed_index: Which seed.
        config: The point's.
        ask: Its phase and what it belongs to, to be kept beside it.
    """

    number: int
    arm: int
    point: int
    seed_index: int
    config: Mapping[str, Any]
    ask: Mapping[str, Any]


def extra_trials(specification: Specification, arm: int, trials: Sequence[TrialRecord]) -> list[ExtraTrial]:
    """List the trials that an arm still needs beyond its search, those that exist left out.

    Args:
        specification: The campaign's.
        arm: Index of the arm; its search must have ended.
        trials: The arm's trials, those of finals and audit included.
    """
    searched = [trial for trial in trials if trial.phase is Phase.SEARCH]
    assert all(trial.state.is_terminal for trial in searched), "the search of the arm must have ended"
    existing = {trial.number for trial in trials}
    wanted = [*_finals(specification, arm, searched), *_audits(specification, arm, searched)]
    return [trial for trial in wanted if trial.number not in existing]


def nearest_the_cut(stopped: Sequence[TrialRecord], *, minimize: bool, num_trials: int) -> list[TrialRecord]:
    """Choose stopped trials that came closest to going on.

    Args:
        stopped: Trials that a stopping rule ended.
        minimize: Whether small values are better.
        num_trials: At most so many.
    """
    of_step: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in stopped:
        if trial.objective is not None:
            of_step[trial.last_step].append(trial)
    sign = 1.0 if minimize else -1.0
    ordered = [
        sorted(of_step[step], key=lambda trial: (sign * _value(trial), trial.number)) for step in sorted(of_step)
    ]
    turns = chain.from_iterable(zip_longest(*ordered))
    return [trial for trial in turns if trial is not None][:num_trials]


def _finals(specification: Specification, arm: int, searched: Sequence[TrialRecord]) -> list[ExtraTrial]:
    finals, num_arms = specification.finals, len(specification.arms)
    if finals is None:
        return []
    standing = leaderboard(searched, num_arms=num_arms, mode=specification.objective.mode)[arm]
    return [
        ExtraTrial(
            number=naming.final_number(
                arm=arm,
                rank=rank,
                seed_index=index,
                num_arms=num_arms,
                seeds=finals.seeds,
                num_search_trials=specification.num_search_trials,
            ),
            arm=arm,
            point=point.point,
            seed_index=specification.search.seeds + index,
            config=point.config,
            ask={"phase": Phase.FINAL.value, "rank": rank},
        )
        for rank, point in enumerate(standing.ranked[: finals.keep])
        for index in range(finals.seeds)
    ]


def _audits(specification: Specification, arm: int, searched: Sequence[TrialRecord]) -> list[ExtraTrial]:
    finals = specification.finals
    num_finals = len(specification.arms) * finals.keep * finals.seeds if finals else 0
    first = specification.num_search_trials + num_finals
    stopped = [trial for trial in searched if trial.state is TrialState.STOPPED]
    minimize = specification.objective.mode == "minimize"
    chosen = nearest_the_cut(stopped, minimize=minimize, num_trials=specification.stopping.audit)
    return [
        ExtraTrial(
            number=naming.audit_number(trial.number, first=first),
            arm=arm,
            point=trial.point,
            seed_index=trial.seed_index,
            config=trial.config,
            ask={"phase": Phase.AUDIT.value, "of": trial.number},
        )
        for trial in chosen
    ]


def _value(trial: TrialRecord) -> float:
    assert trial.objective is not None, "only trials with a value are ordered"
    return trial.objective
