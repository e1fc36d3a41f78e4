"""What stopping has cost, and how surely that is known."""

from __future__ import annotations

import pytest
from scipy import stats

from spectune.service.campaign.analysis.regret import rate_interval, stop_regret
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import TrialRecord


def _audit(
    number: int, objective: float | None, state: TrialState = TrialState.COMPLETED, phase: str = "audit"
) -> TrialRecord:
    return TrialRecord(
        number=number,
        arm=0,
        point=number,
        seed_index=0,
        config={},
        ask={"phase": phase},
        state=state,
        reason="",
        message="",
        since=0,
        created_at=0,
        attempt=1,
        num_losses=0,
        last_step=10,
        objective=objective,
        device_seconds=1.0,
    )


def test_a_stop_was_wrong_where_the_trial_would_have_been_the_best() -> None:
    trials = [_audit(0, 1.0), _audit(1, 0.7), _audit(2, 0.4), _audit(3, None, TrialState.DIVERGED)]
    trials += [_audit(4, 0.0, phase="search"), _audit(5, 0.0, TrialState.RUNNING), _audit(6, 0.0, TrialState.FAILED)]
    regret = stop_regret(trials, best=0.8, mode="minimize")
    assert regret is not None
    assert (regret.num_audited, regret.num_wrong, regret.rate) == (4, 2, 0.5)
    assert regret.largest == pytest.approx(0.4)
    upward = stop_regret(trials, best=0.8, mode="maximize")
    assert upward is not None
    assert (upward.num_wrong, upward.largest) == (1, pytest.approx(0.2))


def test_without_audits_or_a_best_there_is_no_regret() -> None:
    assert stop_regret([_audit(0, 1.0, phase="search")], best=1.0, mode="minimize") is None
    assert stop_regret([_audit(0, 1.0)], best=None, mode="minimize") is None


@pytest.mark.parametrize(("hits", "tries"), [(0, 10), (1, 10), (5, 10), (10, 10), (2, 37)])
def test_the_interval_is_clopper_and_pearsons(hits: int, tries: int) -> None:
    expected = stats.binomtest(hits, tries).proportion_ci(method="exact")
    assert rate_interval(hits, tries) == pytest.approx((expected.low, expected.high))
