"""What the command prints of a campaign: bars while it runs, a leaderboard and one JSON object at its end."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.cli.outcome import outcome_document, show_outcome, show_tracking
from spectune.service.cli.progress import ProgressDisplay
from spectune.service.data_directory import DataDirectory
from spectune.service.ports import CampaignPages
from tests.fakes.slots import specification

TWO_SEEDS = specification(search={"sampler": "random", "points": 2, "seeds": 2})


def trial(number: int, arm: int, point: int, state: TrialState, objective: float | None, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "number": number,
        "arm": arm,
        "point": point,
        "seed_index": number % 2,
        "config": {"lr": 0.1 * (point + 1), "betas": [0.9, 0.95]},
        "ask": {},
        "state": state,
        "reason": "",
        "message": "",
        "since": 0,
        "created_at": 0,
        "attempt": 1,
        "num_losses": 0,
        "last_step": 90,
        "objective": objective,
        "device_seconds": 2.0,
    }
    return TrialRecord(**(values | changes))


TRIALS = [
    trial(0, 0, 0, TrialState.COMPLETED, 1.0),
    trial(1, 0, 0, TrialState.COMPLETED, 2.0),
    trial(2, 1, 0, TrialState.COMPLETED, 0.5),
    trial(3, 1, 0, TrialState.COMPLETED, 0.7),
    trial(4, 0, 1, TrialState.DIVERGED, math.nan),
    trial(5, 0, 1, TrialState.RUNNING, 9.0),
]


def campaign(state: CampaignState, message: str = "") -> CampaignRecord:
    return CampaignRecord("c", "simulated", state, "", message, 0, 0, TWO_SEEDS.document(), 1, 10)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_leaderboard_puts_the_best_arm_first_with_mean_and_interval(console: Console, tmp_path: Path) -> None:
    show_outcome(console, TWO_SEEDS, campaign(CampaignState.SUCCEEDED), TRIALS, data=DataDirectory(tmp_path))
    text = said(console)
    assert text.index("adamw") < text.index("muon")
    assert "mean of 2 seeds ± 95 % interval" in text
    assert "0.6 ± 1.3" in text  # 12.706 x 0.1414 / sqrt(2): two seeds say next to nothing
    assert "1.5 ± 6.4" in text
    assert "1 running, 1 diverged" in text
    assert "optimizer: adamw\nlr: 0.1\nbetas:\n- 0.9\n- 0.95" in text


def test_finals_order_the_arms_choose_the_best_and_give_the_verdicts(console: Console, tmp_path: Path) -> None:
    judged = specification(search={"sampler": "random", "points": 1}, finals={"keep": 1, "seeds": 3})
    trials = [trial(0, 0, 0, TrialState.COMPLETED, 0.1), trial(1, 1, 0, TrialState.COMPLETED, 0.2)]
    for arm, values in enumerate([(2.0, 2.5, 3.01), (1.0, 1.51, 2.0)]):  # the lucky one of the search is the worse one
        trials += [
            trial(2 + 3 * arm + seed, arm, 0, TrialState.COMPLETED, value, seed_index=1 + seed, ask={"phase": "final"})
            for seed, value in enumerate(values)
        ]
    show_outcome(console, judged, campaign(CampaignState.SUCCEEDED), trials, data=DataDirectory(tmp_path))
    text = said(console)
    assert "search: one seed, finals: mean of 3 new seeds ± 95 % interval" in text
    assert "differences may be chance" not in text
    assert text.index("adamw") < text.index("muon")
    assert "1.503 ± 1.2" in text  # 4.303 x 0.5 / sqrt(3)
    assert "adamw is better than muon by 1 (p = 3.3e-05 over 3 common seeds, Holm-corrected; muon ahead on 0)" in text
    assert "best configuration (arm adamw, point 0)" in text


def test_an_arm_without_a_completed_trial_says_so(console: Console, tmp_path: Path) -> None:
    show_outcome(console, TWO_SEEDS, campaign(CampaignState.CANCELLED), [], data=DataDirectory(tmp_path))
    assert said(console).count("none completed") == 2


def test_a_failed_campaign_shows_the_traceback_s_last_line_and_the_log(console: Console, tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    log = data.driver_log("c", 1)
    log.parent.mkdir(parents=True)
    log.touch()
    broken = trial(0, 0, 0, TrialState.FAILED, None, message="Traceback ...\nValueError: too wide: got 7\n")
    show_outcome(console, TWO_SEEDS, campaign(CampaignState.FAILED, "every trial failed"), [broken], data=data)
    assert "trial 0: ValueError: too wide: got 7" in said(console)
    assert str(log) in said(console)


def test_the_json_object_has_the_documented_shape_and_no_numbers_that_json_lacks() -> None:
    document = outcome_document(TWO_SEEDS, campaign(CampaignState.SUCCEEDED), TRIALS, wall_seconds=1.5)
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "campaign_id": "c",
        "state": "SUCCEEDED",
        "wall_seconds": 1.5,
        "lacking": {},
        "pareto": None,
        "best": {
            "arm": "adamw",
            "point": 0,
            "trials": [2, 3],
            "value": 0.6,
            "half_width": pytest.approx(1.2706, abs=1e-4),
            "phase": "search",
            "how": "best search value: mean ± 95 % interval, 2 seeds",
        },
        "why_no_best": "",
        "progress": "1 running, 4 completed, 1 diverged of 8",
        "arms": [
            {
                "name": "muon",
                "optimizer": "muon",
                "num_trials": 4,
                "states": {"COMPLETED": 2, "DIVERGED": 1, "RUNNING": 1},
                "best": {
                    "value": 1.5,
                    "half_width": pytest.approx(6.3531, abs=1e-4),
                    "config": {"lr": 0.1, "betas": [0.9, 0.95]},
                    "trial": 0,
                },
                "finals": [],
            },
            {
                "name": "adamw",
                "optimizer": "adamw",
                "num_trials": 2,
                "states": {"COMPLETED": 2},
                "best": {
                    "value": 0.6,
                    "half_width": pytest.approx(1.2706, abs=1e-4),
                    "config": {"lr": 0.1, "betas": [0.9, 0.95]},
                    "trial": 2,
                },
                "finals": [],
            },
        ],
    }


def test_with_two_objectives_the_outcome_is_the_front(console: Console, tmp_path: Path) -> None:
    objective = [{"metric": "validation_loss"}, {"metric": "throughput", "mode": "maximize"}]
    two = specification(objective=objective, stopping={"rule": "none"})
    trials = [trial(0, 0, 0, TrialState.COMPLETED, 1.0), trial(1, 1, 0, TrialState.COMPLETED, 2.0)]
    trials.append(trial(2, 0, 1, TrialState.COMPLETED, 3.0))
    speeds = [10.0, 30.0, 20.0]
    observations = [
        Observation(number, number, 90, 1, 0, {"validation_loss": each.objective or 0.0, "throughput": speeds[number]})
        for number, each in enumerate(trials)
    ]
    data = DataDirectory(tmp_path)
    show_outcome(console, two, campaign(CampaignState.SUCCEEDED), trials, data=data, observations=observations)
    text = said(console)
    assert "Pareto front: no other point is as good in both objectives" in text
    assert "throughput (maximize)" in text
    assert "best configuration" not in text
    document = outcome_document(
        two, campaign(CampaignState.SUCCEEDED), trials, wall_seconds=1.0, observations=observations
    )
    assert [(each["arm"], each["point"], each["costs"]["throughput"]) for each in document["pareto"]] == [
        (0, 0, 10.0),
        (1, 0, 30.0),
    ]


def test_the_way_into_mlflow_is_a_command_and_an_address(console: Console, tmp_path: Path) -> None:
    show_tracking(
        console, data=DataDirectory(tmp_path / "with space"), pages=CampaignPages(run="http://127.0.0.1:5000/#/x")
    )
    text = said(console)
    assert f"ui --backend-store-uri 'sqlite:///{tmp_path}/with space/mlflow.sqlite' --host 127.0.0.1" in text
    assert "http://127.0.0.1:5000/#/x" in text


def test_progress_without_a_terminal_is_a_line_with_counts_and_the_time_left(console: Console) -> None:
    with ProgressDisplay(TWO_SEEDS, console) as display:
        display.show(campaign(CampaignState.RUNNING), TRIALS)
    # 5 of 8 trials ended at 2 device seconds each: 3 are left, of which one has used its 2 already, on 3 workers.
    assert "1 running, 4 completed, 1 diverged of 8  running, about 2 s left" in said(console)


def test_progress_on_a_terminal_has_a_bar_per_arm_with_its_best() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with ProgressDisplay(TWO_SEEDS, console) as display:
        display.show(campaign(CampaignState.RUNNING), TRIALS)
    text = said(console)
    for words in ("muon", "adamw", "best 0.6 ± 1.3", "3/4", "5/8"):
        assert words in text


CUT = [
    trial(0, 0, 0, TrialState.COMPLETED, 1.0),
    trial(1, 0, 1, TrialState.CANCELLED, 2.0, reason="wall_seconds_spent"),
]


def test_arms_that_were_never_tried_come_before_any_number_and_leave_no_best(tmp_path: Path) -> None:
    """One arm had all the time of a budget, and its best was the campaign's."""
    console = Console(file=io.StringIO(), width=120)
    ended = campaign(CampaignState.SUCCEEDED)
    show_outcome(console, TWO_SEEDS, ended, CUT, data=DataDirectory(tmp_path))
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line]
    assert lines[0] == "adamw: never tried; arms are not comparable"
    assert not any(line.startswith("best configuration") for line in lines)
    outcome = outcome_document(TWO_SEEDS, ended, CUT, wall_seconds=1.0)
    assert outcome["lacking"] == {"adamw": "never tried"}


def test_arms_that_all_had_their_share_have_a_best(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    show_outcome(console, TWO_SEEDS, campaign(CampaignState.SUCCEEDED), TRIALS[:5], data=DataDirectory(tmp_path))
    assert isinstance(console.file, io.StringIO)
    assert "best configuration (arm adamw, point 0)" in console.file.getvalue()
