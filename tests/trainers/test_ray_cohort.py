"""A slot follows its verdicts: it trains to the next report step, checkpoints what is known, and survives bad code."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.verdict_source import ScriptedVerdicts
from trainers import checkpoints
from trainers.ray_cohort import Assignment, BoardLostError, Ending, MemberReport, Slot, Verdict
from trainers.schedules import Schedule
from trainers.setting import TrialSetting
from trainers.tasks import task_from_options

GO_ON = Verdict()
END = Verdict(finish=True)


def assignment(folder: Path, trial: int = 0, *, earlier: tuple[str, ...] = (), **changes: Any) -> Assignment:
    setting = TrialSetting(
        task=task_from_options("matrix_completion", {"rows": 12, "columns": 9, "rank": 2}),
        optimizer="adamw",
        hyperparameters={"lr": 0.05},
        schedule=Schedule(),
        steps=30,
        seed=0,
        data_seed=0,
    )
    return Assignment(
        trial=trial,
        setting=replace(setting, **changes),
        report_steps=(10, 20, 30),
        checkpoint_folder=str(folder / f"trial-{trial}"),
        earlier_folders=earlier,
        checkpoint_seconds=0.0,
        cpus=1,
    )


def play(*verdicts: Verdict) -> list[MemberReport]:
    """Let a slot follow a script to its end and list what its members did."""
    slot = Slot("s", ScriptedVerdicts(verdicts))
    reports: list[MemberReport] = []
    while (outcome := slot.step()) is not None:
        reports += outcome[1]
    return reports


def numbers(reports: list[MemberReport]) -> list[tuple[int, float]]:
    return [(report.step, report.metrics["validation_loss"]) for report in reports]


def test_a_member_trains_to_each_report_step_and_no_further(tmp_path: Path) -> None:
    reports = play(Verdict(admit=(assignment(tmp_path),)), GO_ON, GO_ON, END)
    assert [(report.step, report.ending) for report in reports] == [(step, Ending.REACHED) for step in (10, 20, 30)]
    assert all(math.isfinite(report.metrics["validation_loss"]) for report in reports)


def test_reports_are_numbered_and_asking_starts_at_zero(tmp_path: Path) -> None:
    verdicts = ScriptedVerdicts([Verdict(admit=(assignment(tmp_path),)), GO_ON, END])
    slot = Slot("s", verdicts)
    numbers_given = [outcome[0] for outcome in iter(slot.step, None) if outcome is not None]
    assert (numbers_given, verdicts.asked) == ([1, 2], [0, 1, 2])


def test_an_evicted_member_makes_room_for_the_next(tmp_path: Path) -> None:
    first, second = assignment(tmp_path, 0), assignment(tmp_path, 1)
    reports = play(Verdict(admit=(first,)), Verdict(evict=(0,), admit=(second,)), GO_ON, END)
    assert [(report.trial, report.step) for report in reports] == [(0, 10), (1, 10), (1, 20)]


def test_a_checkpoint_knows_only_what_has_been_acknowledged(tmp_path: Path) -> None:
    """A report whose verdict never came may be lost with its worker, so no checkpoint may lie behind it."""
    folder = tmp_path / "trial-0"
    slot = Slot("s", ScriptedVerdicts([Verdict(admit=(assignment(tmp_path),)), GO_ON]))
    slot.step()
    assert checkpoints.latest(folder).state is None
    slot.step()
    state = checkpoints.latest(folder).state
    assert state is not None
    assert state["step"] == 10


def test_a_member_of_a_lost_worker_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = play(Verdict(admit=(assignment(tmp_path / "whole"),)), GO_ON, GO_ON, END)
    play(Verdict(admit=(assignment(tmp_path),)), GO_ON, END)  # its last checkpoint is at step 20
    rest = play(Verdict(admit=(assignment(tmp_path),)), END)
    assert numbers(rest) == numbers(whole)[2:]


def test_a_checkpoint_of_an_earlier_attempt_is_found(tmp_path: Path) -> None:
    play(Verdict(admit=(assignment(tmp_path / "one"),)), GO_ON, END)
    later = assignment(tmp_path / "two", earlier=(str(tmp_path / "one" / "trial-0"),))
    assert [report.step for report in play(Verdict(admit=(later,)), END)] == [30]


def test_a_torn_checkpoint_costs_steps_and_nothing_else(tmp_path: Path) -> None:
    whole = play(Verdict(admit=(assignment(tmp_path),)), GO_ON, GO_ON, END)
    for path in (tmp_path / "trial-0").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert numbers(play(Verdict(admit=(assignment(tmp_path),)), GO_ON, GO_ON, END)) == numbers(whole)


def test_code_that_raises_fails_its_trial_with_the_traceback_and_not_the_slot(tmp_path: Path) -> None:
    broken = assignment(tmp_path, 0, optimizer="nothing")
    reports = play(Verdict(admit=(broken,)), Verdict(evict=(0,), admit=(assignment(tmp_path, 1),)), END)
    assert [(report.trial, report.ending) for report in reports] == [(0, Ending.FAILED), (1, Ending.REACHED)]
    assert "got 'nothing'" in reports[0].message
    assert "Traceback" in reports[0].message


def test_a_member_that_diverges_says_why(tmp_path: Path) -> None:
    (report,) = play(Verdict(admit=(assignment(tmp_path, hyperparameters={"lr": 1e30}),)), END)
    assert report.ending is Ending.DIVERGED
    assert report.message
    assert math.isnan(report.metrics["validation_loss"])


class DeadBoard(ScriptedVerdicts):
    """A board that dies after its first verdict."""

    def is_stopping(self) -> bool:
        raise BoardLostError("the actor died")


def test_a_board_that_dies_ends_the_slot_and_fails_no_trial(tmp_path: Path) -> None:
    """Asked inside a stretch, a dead board looked like a mistake in the user's code: the trial was lost for good."""
    long = replace(assignment(tmp_path, steps=10_000_000), report_steps=(10_000_000,))
    slot = Slot("s", DeadBoard([Verdict(admit=(long,))]))
    with pytest.raises(BoardLostError, match="the actor died"):
        slot.step()


def test_a_stop_interrupts_a_long_stretch_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    long = replace(assignment(tmp_path, steps=10_000_000), report_steps=(10_000_000,))
    verdicts = ScriptedVerdicts([Verdict(admit=(long,)), Verdict(finish=True, checkpoint=True)])
    verdicts.stopping = True
    slot = Slot("s", verdicts)
    outcome = slot.step()
    assert outcome is not None
    (report,) = outcome[1]
    assert (report.ending, report.metrics) == (Ending.INTERRUPTED, {})
    assert 0 < report.step < 10_000_000
    assert slot.step() is None
    state = checkpoints.latest(tmp_path / "trial-0").state
    assert state is not None
    assert state["step"] == report.step
