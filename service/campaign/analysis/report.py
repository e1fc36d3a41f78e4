"""What a campaign says about its optimizers, from its records alone.

Every number says how it was obtained: the seeds behind a mean, whether a band is valid, what a verdict could have
shown. The search chooses points, the finals judge them: the best value of a search is its luckiest as well, so arms are
compared by finals only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectune.service.campaign.analysis.arm_comparison import ArmComparison, interval_half_width, verdicts
from spectune.service.campaign.analysis.best import BestPoint, campaign_ranking
from spectune.service.campaign.analysis.comparability import comparability, group_of
from spectune.service.campaign.analysis.executions import arithmetic_notes
from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding, leaderboard
from spectune.service.campaign.analysis.pareto import ParetoPoint, campaign_front
from spectune.service.campaign.analysis.regret import StopRegret, stop_regret
from spectune.service.campaign.analysis.sensitivity import Basin, Completed, Edge, basins, edges, importances
from spectune.service.campaign.analysis.tuning_curve import TuningCurve, tuning_curve, why_no_band
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.numbers import plain_json
from spectune.service.campaign.model.progress import campaign_progress, tally
from spectune.service.campaign.model.records import CampaignRecord, Observation, Phase, TrialRecord
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import Specification


@dataclass(frozen=True)
class Finals:
    """An arm's best point, judged with seeds of its own.

    Attributes:
        point: Its index within the arm.
        values: The final value of each seed that completed, by seed index.
        mean: Of these; None unless the point counts as completed, which it does not if a seed has diverged.
        spread: Their sample standard deviation; None for fewer than two.
        num_seeds: How many seeds were run.
        num_diverged: How many of them diverged.
    """

    point: int
    values: Mapping[int, float]
    mean: float | None
    spread: float | None
    num_seeds: int
    num_diverged: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval of the mean, by Student's t; None for fewer than two values."""
        return None if self.spread is None else interval_half_width(self.spread, num_seeds=len(self.values))


@dataclass(frozen=True)
class ArmReport:
    """One arm.

    Attributes:
        best: Its best point of the search; None where none completed.
        finals: Of its best point; None where there are none.
        num_trials: How many of its trials are in each state.
        device_seconds: What it has used.
        curve: Its tuning curve.
        basins: How wide each hyperparameter may be chosen.
        importances: Each hyperparameter's share; empty with fewer than ten completed points.
        regret: What stopping has cost; None where nothing was audited.
        edges: Best values at a bound.
    """

    arm: int
    name: str
    optimizer: str
    best: PointStanding | None
    finals: Finals | None
    num_trials: Mapping[TrialState, int]
    device_seconds: float
    curve: TuningCurve
    basins: Mapping[str, Basin]
    importances: Mapping[str, float]
    regret: StopRegret | None
    edges: Sequence[Edge]


@dataclass(frozen=True)
class Report:
    """A campaign.

    Attributes:
        progress: Its trials by state out of those that are planned.
        best: The best point of all; None if none may be named.
        why_no_best: Why none may be named; empty if one is.
        order: The arms by their index, the best first.
        verdicts: One per pair of arms that have finals.
        pareto: Points of the search that nothing dominates, over all arms.
        lacking: What arms that did not get their share lack, by arm; then nothing is said to be the best.
        notes: What a reader must know to trust the numbers; that arms are not comparable comes first.
    """

    campaign_id: str
    state: str
    objective: str
    mode: str
    steps: int
    progress: str
    best: BestPoint | None
    why_no_best: str
    order: Sequence[int]
    arms: Sequence[ArmReport]
    verdicts: Sequence[ArmComparison]
    pareto: Sequence[ParetoPoint]
    lacking: Mapping[str, str]
    notes: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return the report as plain JSON; a number that is not finite is its name."""
        plain: dict[str, Any] = plain_json(dataclasses.asdict(self))
        plain["best"] = None if self.best is None else self.best.document(self.arms[self.best.arm].name)
        for arm, told in zip(self.arms, plain["arms"], strict=True):
            for name, found in (("best", arm.best), ("finals", arm.finals)):
                if found is not None:
                    told[name]["half_width"] = plain_json(found.half_width)
        return plain


def make_report(
    specification: Specification,
    campaign: CampaignRecord,
    trials: Sequence[TrialRecord],
    observations: Iterable[Observation],
    *,
    catalog: Catalog,
) -> Report:
    """Report on a campaign, at rest or not.

    Args:
        specification: What was asked for.
        campaign: The campaign.
        trials: All its trials.
        observations: At least the last one of each trial.
        catalog: What the optimizers take.
    """
    objective = specification.objective
    standings = leaderboard(trials, num_arms=len(specification.arms), mode=objective.mode)
    arms = [
        _arm_report(specification, standing, [trial for trial in trials if trial.arm == standing.arm], catalog)
        for standing in standings
    ]
    ranking = campaign_ranking(campaign, standings, tally(trials))
    finals = {arm.arm: arm.finals.values for arm in arms if arm.finals is not None}
    shares = comparability([arm.name for arm in arms], map(group_of, trials), state=campaign.state)
    return Report(
        campaign_id=campaign.campaign_id,
        state=campaign.state.value,
        objective=objective.metric,
        mode=objective.mode,
        steps=specification.task.steps,
        progress=campaign_progress(campaign, tally(trials)).text,
        best=ranking.best,
        why_no_best=ranking.why_none,
        order=[each.arm for each in ranking.arms],
        arms=arms,
        verdicts=verdicts(finals, mode=objective.mode),
        pareto=campaign_front(specification, standings, trials, observations),
        lacking=shares.lacking,
        notes=[*shares.notes, *_notes(specification, campaign, arms), *arithmetic_notes(specification, trials)],
    )


def final_verdicts(specification: Specification, trials: Sequence[TrialRecord]) -> list[ArmComparison]:
    """Compare all arms that have finals, as the report does; empty without finals.

    Args:
        specification: What was asked for.
        trials: All trials.
    """
    mode = specification.objective.mode
    standings = leaderboard(trials, num_arms=len(specification.arms), mode=mode)
    of_arms = {each.arm: _finals(each, [trial for trial in trials if trial.arm == each.arm]) for each in standings}
    return verdicts({arm: finals.values for arm, finals in of_arms.items() if finals}, mode=mode)


def bound_warnings(specification: Specification, trials: Sequence[TrialRecord], *, catalog: Catalog) -> list[str]:
    """Say of every arm which values of its best point are at a bound of the search, and where to extend it to.

    Args:
        specification: What was asked for.
        trials: All trials.
        catalog: What the optimizers take.
    """
    standings = leaderboard(trials, num_arms=len(specification.arms), mode=specification.objective.mode)
    return [
        _advice(specification.arms[standing.arm].name, edge)
        for standing in standings
        for edge in _edges(specification, standing, catalog)
    ]


def _arm_report(
    specification: Specification, standing: ArmStanding, trials: Sequence[TrialRecord], catalog: Catalog
) -> ArmReport:
    arm, mode = specification.arms[standing.arm], specification.objective.mode
    space = arm.search_space
    coordinates = {trial.point: trial.ask["coordinates"] for trial in trials if trial.phase is Phase.SEARCH}
    completed = [Completed(each.config, coordinates[each.point], each.value) for each in standing.ranked]
    best = standing.best
    return ArmReport(
        arm=standing.arm,
        name=arm.name,
        optimizer=arm.optimizer,
        best=best,
        finals=_finals(standing, trials),
        num_trials=standing.num_trials,
        device_seconds=sum(trial.device_seconds for trial in trials),
        curve=_curve(specification, standing, trials),
        basins=basins(space, completed, mode=mode),
        importances=importances(space, completed, mode=mode),
        regret=stop_regret(trials, best=best.value if best else None, mode=mode),
        edges=_edges(specification, standing, catalog),
    )


def _finals(standing: ArmStanding, trials: Sequence[TrialRecord]) -> Finals | None:
    """Gather the finals of the point that did best in them or, before any has completed, in the search."""
    mine = [trial for trial in trials if trial.phase is Phase.FINAL]
    if not mine:
        return None
    point = standing.final.point if standing.final else min(mine, key=lambda trial: trial.number).point
    of_point = [trial for trial in mine if trial.point == point]
    values = {
        trial.seed_index: trial.objective
        for trial in of_point
        if trial.state is TrialState.COMPLETED and trial.objective is not None and math.isfinite(trial.objective)
    }
    return Finals(
        point=point,
        values=values,
        mean=standing.final.value if standing.final else None,
        spread=standing.final.spread if standing.final else None,
        num_seeds=len(of_point),
        num_diverged=sum(trial.state is TrialState.DIVERGED for trial in of_point),
    )


def _curve(specification: Specification, standing: ArmStanding, trials: Sequence[TrialRecord]) -> TuningCurve:
    """Draw the tuning curve from the points that were drawn and have ended, in their order."""
    drawn = [trial for trial in trials if trial.phase is Phase.SEARCH and trial.ask.get("origin") != "initial"]
    told = {each.point: each.value for each in standing.ranked}
    without_value = (TrialState.DIVERGED, TrialState.STOPPED)
    told |= {trial.point: math.inf for trial in drawn if trial.state in without_value}
    points = sorted({trial.point for trial in drawn} & told.keys())
    reason = why_no_band(
        specification.search.sampler,
        is_stopped=any(trial.state is TrialState.STOPPED for trial in drawn),
        space=specification.arms[standing.arm].search_space,
        num_points=len(points),
    )
    if not reason and any(not trial.state.is_terminal for trial in drawn):
        reason = "the search has not ended, and the points that end first are not a fair sample"
    return tuning_curve([told[point] for point in points], mode=specification.objective.mode, reason=reason)


def _notes(specification: Specification, campaign: CampaignRecord, arms: Sequence[ArmReport]) -> list[str]:
    notes = []
    if not campaign.state.is_terminal:
        notes.append(f"the campaign is {campaign.state}: what is not there yet may change everything")
    if len(specification.objectives) > 1:
        notes.append("two objectives: no arm is the better one; points that nothing dominates are listed")
    elif specification.finals is None:
        notes.append("no verdicts: the best of a search is its luckiest too; give `finals` to compare arms")
    elif specification.finals.keep > 1:
        notes.append(f"the best of {specification.finals.keep} finalists was chosen by its finals, which flatters it")
    notes.append("one search seed: this compares tuned configurations; how easily each is found takes three or more")
    for reason in dict.fromkeys(arm.curve.reason for arm in arms if arm.curve.reason):
        names = ", ".join(arm.name for arm in arms if arm.curve.reason == reason)
        notes.append(f"{names}: a tuning curve without band: {reason}")
    for arm in arms:
        if arm.finals and arm.finals.num_diverged:
            finals = arm.finals
            notes.append(f"{arm.name}: {finals.num_diverged} of {finals.num_seeds} seeds diverged and are not compared")
        notes += [_advice(arm.name, edge) for edge in arm.edges]
    return notes


def _edges(specification: Specification, standing: ArmStanding, catalog: Catalog) -> list[Edge]:
    if standing.best is None:
        return []
    arm, best = specification.arms[standing.arm], standing.best
    allowed = catalog.optimizers[arm.optimizer]
    point = Completed(best.config, {}, best.value)
    return edges(arm.search_space, point, is_allowed=lambda name, value: not allowed[name].problem_with(value))


def _advice(arm: str, edge: Edge) -> str:
    advice = "nothing lies beyond" if edge.extend_to is None else f"extend to {edge.extend_to:g}"
    return f"{arm}: the best {edge.name}, {edge.value:.4g}, is at the bound {edge.bound:g}; {advice}"
