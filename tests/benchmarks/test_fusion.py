"""The measuring behind benchmarks/fusion.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from benchmarks.fusion import CASES, PLAIN, SOLO, Case, contenders, measure, memory, memory_ratio, plain_loop, planned
from benchmarks.peak_memory import peak_bytes
from spectune.trainers import SoloTrial
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import MatrixCompletion

TINY = Case("matrix_completion", {"rows": 8, "columns": 6, "rank": 2})


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.slow
def test_every_line_is_timed_beside_one_trial_alone_and_the_plain_loop() -> None:
    lines = measure(TINY, numbers=(1, 2), device="cpu", repeats=2)
    assert [line["line"] for line in lines] == [PLAIN, SOLO, "K = 1", "K = 2", "K = 2, own data"]
    assert all(line["microseconds"] > 0 for line in lines)
    assert lines[0]["against_plain"] == lines[1]["against_alone"] == 1.0


def test_the_achieved_gain_is_that_of_the_planned_number() -> None:
    lines = [
        {"line": SOLO, "members": 1, "against_alone": 1.0},
        {"line": "K = 2", "members": 2, "against_alone": 17.0},
    ]
    plan = planned(TINY, lines, most=2, device="cpu")
    assert plan["achieved"] == {1: 1.0, 2: 17.0}[plan["members"]]


def test_members_with_data_of_their_own_have_it() -> None:
    assert isinstance(TINY.setting().task, MatrixCompletion)
    assert TINY.setting(3, data_seed=3).data_seed == 3
    assert list(contenders(TINY, (2,), "cpu"))[-1] == "K = 2, own data"


@pytest.mark.parametrize("title", ["matrix_completion 20x20", "matrix_logistic 50x20"])
def test_the_plain_loop_takes_the_steps_of_the_trial_alone(title: str) -> None:
    setting = CASES[title].setting()
    trial, model = SoloTrial(setting), setting.task.build(generator_for("model", setting.seed))
    start = parameters_to_vector(model.parameters()).detach().clone()
    trial.advance(3)
    plain_loop(model, setting)(3)
    plain, ours = (parameters_to_vector(each.parameters()).detach() - start for each in (model, trial.model))
    assert (plain - ours).norm() < 0.1 * plain.norm()  # torch's polar factors are bfloat16


@pytest.mark.parametrize("title", [title for title, case in CASES.items() if not case.fills_a_cpu])
def test_members_need_no_more_memory_than_as_many_trials_alone(title: str) -> None:
    found = memory(CASES[title], number=16, device="cpu")
    assert found["held"] == 16 * found["held_by_one_alone"]
    assert found["in_a_step_of_one_alone"] > found["held_by_one_alone"] / 2
    assert memory_ratio(found) <= 1.3


def test_a_peak_is_the_most_held_at_once_and_not_what_was_there_before() -> None:
    before = torch.ones(10_000)

    def work() -> None:
        first = before + 1
        first = first + 1  # both are there, before the first is dropped
        del first
        torch.ones(100)

    work()
    assert 80_000 <= peak_bytes(work, "cpu") < 81_000
