"""What a campaign has come to, from how its trials ended."""

from __future__ import annotations

import math

import pytest

from spectune.service.campaign.ending.budget import Exhausted, Limit
from spectune.service.campaign.ending.conclusion import conclusion
from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.model.records import TrialRecord

S = TrialState
NAN = math.nan


def concluded(
    *trials: tuple[int, TrialState, float | None], has_finite: bool = True, spent: Exhausted | None = None
) -> tuple[CampaignEvent, str, str]:
    """Conclude a campaign of two arms from (arm, state, last objective) of each trial."""
    records = [
        TrialRecord(number, arm, number, 0, {}, {}, state, "", "", 0, 0, 1, 0, 90, objective, 1.0)
        for number, (arm, state, objective) in enumerate(trials)
    ]
    return conclusion(["muon", "adamw"], records, metric="validation_loss", has_finite=has_finite, spent=spent)


def test_a_campaign_that_did_its_work_succeeds() -> None:
    assert concluded((0, S.COMPLETED, 1.0), (1, S.STOPPED, 2.0)) == (CampaignEvent.SUCCEED, "all_trials_ended", "")


@pytest.mark.parametrize(
    ("trials", "counts"),
    [
        ([(0, S.DIVERGED, NAN), (1, S.DIVERGED, NAN)], "2 diverged"),
        ([(0, S.COMPLETED, NAN), (1, S.COMPLETED, math.inf), (1, S.FAILED, None)], "2 completed, 1 failed"),
        ([(0, S.STOPPED, -math.inf), (1, S.DIVERGED, None), (1, S.CANCELLED, None)], "1 stopped, 1 diverged"),
    ],
)
def test_a_campaign_without_one_finite_objective_fails(
    trials: list[tuple[int, TrialState, float | None]], counts: str
) -> None:
    """It succeeded, with "best: none completed"."""
    message = f"no finite validation_loss was ever reported ({counts})"
    assert concluded(*trials, has_finite=False) == (CampaignEvent.FAIL, "nothing_finite", message)


def test_a_campaign_of_which_every_trial_diverged_in_the_end_fails() -> None:
    message = "no trial ended with a finite validation_loss (2 diverged, 1 completed)"
    trials = [(0, S.DIVERGED, 3.0), (1, S.DIVERGED, 2.0), (1, S.COMPLETED, NAN)]
    assert concluded(*trials) == (CampaignEvent.FAIL, "nothing_finite", message)


def test_an_arm_that_diverged_beside_others_is_told_of_in_a_success() -> None:
    told = concluded((0, S.COMPLETED, 1.0), (1, S.DIVERGED, NAN))
    assert told == (CampaignEvent.SUCCEED, "all_trials_ended", "adamw: every trial diverged")


@pytest.mark.parametrize("state", [S.FAILED, S.LOST])
def test_an_arm_whose_trials_all_failed_fails_the_campaign(state: TrialState) -> None:
    told = concluded((0, S.COMPLETED, 1.0), (1, state, None))
    assert told == (CampaignEvent.FAIL, "arm_failed", "every trial of an arm failed: adamw")


def test_a_spent_budget_says_first_what_it_left_out() -> None:
    spent = Exhausted(Limit.WALL_SECONDS, "20 of 20 s of wall time are spent")
    event, reason, message = concluded((0, S.COMPLETED, 1.0), (0, S.CANCELLED, 2.0), spent=spent)
    assert (event, reason) == (CampaignEvent.SUCCEED, "wall_seconds_spent")
    assert message == "adamw: never tried; arms are not comparable; 20 of 20 s of wall time are spent"


def test_a_budget_that_ends_before_any_trial_fails_nothing() -> None:
    spent = Exhausted(Limit.WALL_SECONDS, "spent")
    assert concluded(has_finite=False, spent=spent)[0] is CampaignEvent.SUCCEED
    cut = concluded((0, S.CANCELLED, 2.0), (1, S.CANCELLED, 2.0), spent=spent)
    assert cut[::2] == (CampaignEvent.SUCCEED, "muon, adamw: no trial completed; arms are not comparable; spent")
