"""What a list says of a campaign is what the whole leaderboard says of it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectune.service.campaign.analysis.best import campaign_ranking
from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.progress import tally
from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.ledger import ServiceLedger, entries, summaries

ARMS = 2
VALUES = st.one_of(
    st.sampled_from([0.1, 0.2, 0.3, 1.0, -1.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -1.7e308]),
    st.floats(-1e3, 1e3),
)
TRIALS = st.lists(
    st.tuples(
        st.integers(0, ARMS - 1),
        st.integers(0, 3),
        st.sampled_from(["search", "final", "audit"]),
        st.sampled_from(TrialState),
        VALUES,
    ),
    max_size=30,
)


@pytest.fixture
def ledger(database: str) -> Iterator[ServiceLedger]:
    with ServiceLedger(database) as ledger:
        yield ledger


def enter(ledger: ServiceLedger, trials: list[tuple[int, int, str, TrialState, float]], mode: str) -> CampaignRecord:
    """Enter a campaign whose trials stand as given."""
    campaign_id = f"c-{uuid.uuid4().hex}"
    specification = {"arms": [{"name": str(arm)} for arm in range(ARMS)], "objective": {"mode": mode}}
    ledger.submit(campaign_id, name="x", specification=specification, owner="me")
    attempt, records = ledger.begin_attempt(campaign_id), []
    for number, (arm, point, phase, state, value) in enumerate(trials):
        ask = {} if phase == "search" else {"phase": phase}
        place: dict[str, Any] = {"arm": arm, "point": point, "seed_index": number, "config": {"lr": 0.1}, "ask": ask}
        records.append(entries.trial_created(trial=number, at=1, **place))
        if state is not TrialState.PENDING:
            told: dict[str, Any] = {"metrics": {}, "objective": value, "device_seconds": 0.25, "produced_at": 1}
            records.append(entries.observation(trial=number, step=3, **told))
            records.append(entries.trial_moved(trial=number, state=TrialState.RUNNING, reason="x", at=2))
        if state.is_terminal:
            records.append(entries.trial_moved(trial=number, state=state, reason="x", at=3))
    ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))
    return ledger.campaign(campaign_id)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trials=TRIALS, mode=st.sampled_from(["minimize", "maximize"]), listed=st.sampled_from([2, 2000]))
def test_a_list_finds_the_best_points_and_counts_that_ranking_all_trials_finds(
    ledger: ServiceLedger, trials: list[Any], mode: str, listed: int
) -> None:
    campaign = enter(ledger, trials, mode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, "_MAX_LISTED", listed)
        found = ledger.summaries([campaign])[campaign.campaign_id]
    whole = ledger.trials(campaign.campaign_id)
    standings = leaderboard(whole, num_arms=ARMS, mode=campaign.objective["mode"])
    assert [(each.best, each.final, each.num_trials) for each in found.standings] == [
        (each.best, each.final, each.num_trials) for each in standings
    ]
    best = campaign_ranking(campaign, standings, tally(whole)).best
    assert campaign_ranking(campaign, found.standings, found.tallies).best == best
    assert sorted(found.tallies, key=str) == sorted(tally(whole), key=str)
    assert ledger.tallies([campaign.campaign_id]) == {campaign.campaign_id: found.tallies}


@pytest.mark.parametrize("mode", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "values", [(5e-324,), (5e-324, -5e-324), (1e-310, 1e-300), (1.2e-290, 5e-291, -5e-291), (0.0, 5e-324, 1.7e308)]
)
def test_a_database_that_refuses_to_underflow_lists_the_smallest_numbers(
    ledger: ServiceLedger, mode: str, values: tuple[float, ...]
) -> None:
    trials = [(0, point, "search", TrialState.COMPLETED, value) for point, value in enumerate(values)]
    campaign = enter(ledger, trials, mode)
    best = ledger.summaries([campaign])[campaign.campaign_id].standings[0].best
    assert best is not None
    assert best.value == (min if mode == "minimize" else max)(values)


def test_lists_tell_campaigns_apart_and_know_which_is_maximized(ledger: ServiceLedger) -> None:
    trials = [(0, 0, "search", TrialState.COMPLETED, 1.0), (0, 1, "search", TrialState.COMPLETED, 2.0)]
    both = [enter(ledger, trials, mode) for mode in ("minimize", "maximize")]
    found = ledger.summaries([*both, enter(ledger, [], "minimize")])
    best = [
        campaign_ranking(each, found[each.campaign_id].standings, found[each.campaign_id].tallies).best for each in both
    ]
    assert [each.standing.value for each in best if each] == [1.0, 2.0]
    assert len(found) == 3


def test_many_points_that_tie_are_told_apart_by_their_trials(ledger: ServiceLedger) -> None:
    trials = [(0, 199 - point, "search", TrialState.COMPLETED, 1.0) for point in range(200)]
    campaign = enter(ledger, trials, "maximize")
    best = ledger.summaries([campaign])[campaign.campaign_id].standings[0].best
    assert best is not None
    assert (best.point, best.trials) == (199, (0,))
