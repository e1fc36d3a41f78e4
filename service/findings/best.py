"""A campaign's best configuration as text: YAML whose comments say how it was found, and hold Python that builds it."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.campaign.comparability import Comparability, comparability, group_of
from service.campaign.leaderboard import ArmStanding, PointStanding
from service.campaign.lifecycle import CampaignState
from service.campaign.records import TrialRecord
from service.campaign.specification import Specification
from service.campaign_file import write_yaml
from service.errors import NothingToShowError


def best_text(specification: Specification, standings: Sequence[ArmStanding], *, campaign_id: str) -> str:
    """Write the best configuration: a YAML document whose comments say how it was found, and hold the Python.

    Raises:
        NothingToShowError: No point of these arms has completed.
    """
    ordered = best_first(specification, standings)
    if not ordered or ordered[0].best is None:
        raise NothingToShowError(f"no point has completed: got campaign {campaign_id!r}")
    is_final, arm = judged_by_finals(standings), specification.arms[ordered[0].arm]
    point = _shown(ordered[0], is_final)
    width = "" if point.half_width is None else f" ± {point.half_width:#.2g} (95 %)"
    source = f"{len(point.trials)} seeds of the finals" if is_final else f"{len(point.trials)} seed(s) of the search"
    objective = f"{specification.objective.metric} {point.value:.6g}{width} at step {specification.task.steps}"
    lines = [f"# {campaign_id}, arm {arm.name}, point {point.point}: {objective}, {source}"]
    config = {**arm.fixed, **point.config}  # a trial of an older release does not name all that it was trained with
    lines.append(write_yaml({"optimizer": arm.optimizer, **config}).rstrip())
    lines += ["#", "# in Python:", *(f"#   {line}" for line in python_lines(arm.optimizer, config))]
    return "\n".join(lines)


def shares_of(specification: Specification, trials: Iterable[TrialRecord], *, state: CampaignState) -> Comparability:
    """Tell whether a best over all arms of a campaign may be named, and what must be said first if not."""
    return comparability([arm.name for arm in specification.arms], map(group_of, trials), state=state)


def best_first(specification: Specification, standings: Sequence[ArmStanding]) -> list[ArmStanding]:
    """Order arms by their finals if all have them, else by their best of the search; those with neither come last."""
    sign = 1.0 if specification.objective.mode == "minimize" else -1.0
    is_final = judged_by_finals(standings)
    found = [each for each in standings if each.best is not None]
    rest = [each for each in standings if each.best is None]
    return sorted(found, key=lambda each: sign * _shown(each, is_final).value) + rest


def judged_by_finals(standings: Iterable[ArmStanding]) -> bool:
    """Whether every arm that has a best point has finals too: values of the two are not compared with each other."""
    return all(each.final is not None for each in standings if each.best is not None)


def python_lines(optimizer: str, config: Mapping[str, Any]) -> list[str]:
    """Write Python that builds an optimizer: for a whole `model`, and by its own constructor for `matrices` alone.

    Args:
        optimizer: Its name in the catalogue.
        config: Its hyperparameters.
    """
    from optimizers.catalog import SPECTRAL_CLASSES  # torch

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    whole = f"optimizer = build_optimizer(model, {optimizer!r}{_keywords(given)})"
    if optimizer not in SPECTRAL_CLASSES:
        return ["from optimizers import build_optimizer", whole]
    kind = SPECTRAL_CLASSES[optimizer]
    own = {name: value for name, value in given.items() if name in kind.hyperparameters}
    return [
        f"from optimizers import {kind.__name__}, build_optimizer",
        f"{whole}  # the whole model, AdamW beside the matrices",
        f"optimizer = {kind.__name__}(matrices{_keywords(own)})  # a list of matrices alone",
    ]


def _keywords(given: Mapping[str, Any]) -> str:
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in given), f"no keywords: got {list(given)}"
    return "".join(f", {name}={value!r}" for name, value in given.items())


def _shown(standing: ArmStanding, is_final: bool) -> PointStanding:
    point = standing.final if is_final else standing.best
    assert point is not None, "only arms with a best point are asked"
    return point
