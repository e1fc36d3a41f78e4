"""A slot follows its commands: it trains to the next report step, checkpoints what is known, and survives bad code."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spectune.trainers import checkpoints
from spectune.trainers.engines.lane_step import LaneStep
from spectune.trainers.schedules import Schedule
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks import task_from_options
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, TrialEnding
from spectune.trainers.worker.slot import BoardLostError, Slot, SlotOptions
from tests.fakes.command_source import ScriptedCommands

GO_ON = SlotCommand()
END = SlotCommand(finish=True)


def options(folder: Path, *, attempt: int = 1, checkpoint_seconds: float = 0.0) -> SlotOptions:
    return SlotOptions(str(folder), f"attempt-{attempt}", checkpoint_seconds, cpus=1)


def assignment(trial: int = 0, *, is_new: bool = True, **changes: Any) -> Assignment:
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
        is_new=is_new,
    )


def play(folder: Path, *commands: SlotCommand, attempt: int = 1, name: str = "s") -> list[MemberReport]:
    """Let a slot follow a script to its end and list what its members did."""
    slot = Slot(name, ScriptedCommands(commands), options(folder, attempt=attempt))
    reports: list[MemberReport] = []
    while (report := slot.step()) is not None:
        reports += report.members
    return reports


def next_members(slot: Slot) -> list[MemberReport]:
    report = slot.step()
    return [] if report is None else report.members


def refuse(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def saved(folder: Path, trial: int = 0) -> dict[str, Any] | None:
    return checkpoints.Shelf(folder).latest(trial).state


def numbers(reports: list[MemberReport]) -> list[tuple[int, float]]:
    return [(report.step, report.metrics["validation_loss"]) for report in reports]


def test_a_member_trains_to_each_report_step_and_no_further(tmp_path: Path) -> None:
    reports = play(tmp_path, SlotCommand(admit=(assignment(),)), GO_ON, GO_ON, END)
    assert [(report.step, report.ending) for report in reports] == [
        (step, TrialEnding.REACHED) for step in (10, 20, 30)
    ]
    assert all(math.isfinite(report.metrics["validation_loss"]) for report in reports)


def test_reports_are_numbered_and_asking_starts_at_zero(tmp_path: Path) -> None:
    commands = ScriptedCommands([SlotCommand(admit=(assignment(),)), GO_ON, END])
    slot = Slot("s", commands, options(tmp_path))
    numbers_given = [report.number for report in iter(slot.step, None) if report is not None]
    assert (numbers_given, commands.asked) == ([1, 2], [0, 1, 2])


def test_an_evicted_member_makes_room_for_the_next(tmp_path: Path) -> None:
    first, second = assignment(0), assignment(1)
    reports = play(tmp_path, SlotCommand(admit=(first,)), SlotCommand(evict=(0,), admit=(second,)), GO_ON, END)
    assert [(report.trial, report.step) for report in reports] == [(0, 10), (1, 10), (1, 20)]


def test_members_that_join_later_report_at_their_own_steps(tmp_path: Path) -> None:
    other = assignment(1, optimizer="muon", hyperparameters={"lr": 0.01})
    reports = play(tmp_path, SlotCommand(admit=(assignment(0),)), SlotCommand(admit=(other, assignment(2))), END)
    steps = [(report.trial, report.step) for report in reports]
    assert (steps[0], sorted(steps[1:])) == ((0, 10), [(0, 20), (1, 10), (2, 10)])


def test_a_member_that_is_held_keeps_its_place_and_does_not_train(tmp_path: Path) -> None:
    both = SlotCommand(admit=(assignment(0), assignment(1)))
    reports = play(tmp_path, both, SlotCommand(hold=(0,)), GO_ON, END)
    assert [(each.trial, each.step) for each in reports] == [(0, 10), (1, 10), (1, 20), (0, 20), (1, 30)]


def test_a_slot_whose_members_all_wait_reports_nothing_and_asks_again(tmp_path: Path) -> None:
    slot = Slot("s", ScriptedCommands([SlotCommand(admit=(assignment(),), hold=(0,)), GO_ON, END]), options(tmp_path))
    assert [next_members(slot), [each.step for each in next_members(slot)]] == [[], [10]]


def test_a_trial_that_never_came_may_be_evicted(tmp_path: Path) -> None:
    reports = play(tmp_path, SlotCommand(evict=(7,), admit=(assignment(),)), SlotCommand(evict=(7,)), END)
    assert [(report.trial, report.step) for report in reports] == [(0, 10), (0, 20)]


def test_a_checkpoint_knows_only_what_has_been_acknowledged(tmp_path: Path) -> None:
    """A report whose command never came may be lost with its worker, so no checkpoint may lie behind it."""
    slot = Slot("s", ScriptedCommands([SlotCommand(admit=(assignment(),)), GO_ON]), options(tmp_path))
    slot.step()
    assert saved(tmp_path) is None
    slot.step()
    state = saved(tmp_path)
    assert state is not None
    assert state["step"] == 10


@pytest.mark.parametrize(("attempt", "name"), [(1, "another"), (2, "s")])
def test_a_member_of_a_lost_worker_goes_on_with_the_same_numbers(tmp_path: Path, attempt: int, name: str) -> None:
    whole = play(tmp_path / "whole", SlotCommand(admit=(assignment(),)), GO_ON, GO_ON, END)
    play(tmp_path / "lost", SlotCommand(admit=(assignment(),)), GO_ON, END)  # its last checkpoint is at step 20
    again = SlotCommand(admit=(assignment(is_new=False),))
    assert numbers(play(tmp_path / "lost", again, END, attempt=attempt, name=name)) == numbers(whole)[2:]


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = play(tmp_path / "undisturbed", SlotCommand(admit=(assignment(),)), GO_ON, GO_ON, END)
    slot = Slot("s", ScriptedCommands([SlotCommand(admit=(assignment(),)), GO_ON, GO_ON, END]), options(tmp_path))
    reports = list(next_members(slot))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        reports += next_members(slot)
    assert saved(tmp_path) is None
    assert "No space left on device" in caplog.text
    reports += next_members(slot)
    assert next_members(slot) == []
    assert numbers(reports) == numbers(undisturbed)
    kept = saved(tmp_path)
    assert kept is not None
    assert kept["step"] == 30


def test_a_torn_checkpoint_costs_steps_and_nothing_else(tmp_path: Path) -> None:
    whole = play(tmp_path, SlotCommand(admit=(assignment(),)), GO_ON, GO_ON, END)
    for path in tmp_path.rglob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-7])
    again = SlotCommand(admit=(assignment(is_new=False),))
    assert numbers(play(tmp_path, again, GO_ON, GO_ON, END)) == numbers(whole)


def test_code_that_raises_fails_its_trial_with_the_traceback_and_not_the_slot(tmp_path: Path) -> None:
    broken = assignment(0, optimizer="nothing")
    reports = play(tmp_path, SlotCommand(admit=(broken,)), SlotCommand(evict=(0,), admit=(assignment(1),)), END)
    assert [(report.trial, report.ending) for report in reports] == [(0, TrialEnding.FAILED), (1, TrialEnding.REACHED)]
    assert "got 'nothing'" in reports[0].message
    assert "Traceback" in reports[0].message


def test_a_member_that_diverges_says_why(tmp_path: Path) -> None:
    (report,) = play(tmp_path, SlotCommand(admit=(assignment(hyperparameters={"lr": 1e30}),)), END)
    assert report.ending is TrialEnding.DIVERGED
    assert report.message
    assert math.isnan(report.metrics["validation_loss"])


class DeadBoard(ScriptedCommands):
    """A board that dies after its first command."""

    def is_stopping(self) -> bool:
        raise BoardLostError("the actor died")


def test_a_board_that_dies_ends_the_slot_and_fails_no_trial(tmp_path: Path) -> None:
    """Asked inside a stretch, a dead board looked like a mistake in the user's code: the trial was lost for good."""
    long = replace(assignment(steps=10_000_000), report_steps=(10_000_000,))
    slot = Slot("s", DeadBoard([SlotCommand(admit=(long,))]), options(tmp_path))
    with pytest.raises(BoardLostError, match="the actor died"):
        slot.step()


def test_a_stop_interrupts_a_long_stretch_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    long = replace(assignment(steps=10_000_000), report_steps=(10_000_000,))
    commands = ScriptedCommands([SlotCommand(admit=(long,)), SlotCommand(finish=True, checkpoint=True)])
    commands.stopping = True
    slot = Slot("s", commands, options(tmp_path))
    outcome = slot.step()
    assert outcome is not None
    (report,) = outcome.members
    assert (report.ending, report.metrics) == (TrialEnding.INTERRUPTED, {})
    assert 0 < report.step < 10_000_000
    assert slot.step() is None
    state = saved(tmp_path)
    assert state is not None
    assert state["step"] == report.step


def test_a_slot_checks_a_fused_step_of_a_trial_now_and_then_where_it_is_asked_to(tmp_path: Path) -> None:
    ends = tuple(range(1, 31))
    pair = tuple(replace(assignment(trial, seed=trial), report_steps=ends) for trial in (0, 1))
    script = [SlotCommand(admit=pair), *[GO_ON] * 29, END]
    checking = replace(options(tmp_path), verify_fusion=True)
    found = [each.checks for each in iter(Slot("s", ScriptedCommands(script), checking).step, None) if each is not None]
    assert [
        (place, trial, check.step, check.holds) for place, each in enumerate(found) for trial, check in each.items()
    ] == [
        (0, 0, 1, True),
        (16, 1, 17, True),
    ]
    silent = [each.checks for each in iter(Slot("t", ScriptedCommands(script), options(tmp_path)).step, None) if each]
    assert silent == [{}] * 30


def test_a_fused_step_that_is_not_the_step_alone_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = LaneStep.take

    def off(self: LaneStep, work: Any, *arguments: Any) -> Any:
        losses = take(self, work, *arguments)
        work.weights[0].mul_(1.001)
        return losses

    monkeypatch.setattr(LaneStep, "take", off)
    commands = ScriptedCommands([SlotCommand(admit=(assignment(0), assignment(1, seed=1))), END])
    report = Slot("s", commands, replace(options(tmp_path), verify_fusion=True)).step()
    assert report is not None
    (check,) = report.checks.values()
    assert check.deviation > 1e-4
    assert not check.holds


def test_a_trial_alone_is_not_checked(tmp_path: Path) -> None:
    checking = replace(options(tmp_path), verify_fusion=True)
    alone = Slot("s", ScriptedCommands([SlotCommand(admit=(assignment(0),)), GO_ON, END]), checking)
    assert [each.checks for each in iter(alone.step, None) if each is not None] == [{}, {}]


def test_checking_changes_no_number(tmp_path: Path) -> None:
    pair = SlotCommand(admit=(assignment(0), assignment(1, seed=1)))
    found = []
    for verifies in (False, True):
        checking = replace(options(tmp_path / str(verifies)), verify_fusion=verifies)
        slot = Slot("s", ScriptedCommands([pair, GO_ON, GO_ON, END]), checking)
        reports = [member for each in iter(slot.step, None) if each is not None for member in each.members]
        found.append([(each.trial, *numbers([each])[0], each.metrics["loss"]) for each in reports])
    assert found[0] == found[1]
