"""Checks of what the service can do without: asked at most every two seconds, and honest."""

from __future__ import annotations

import threading

from spectune.service.api.probes import FRESH_SECONDS, RecentAnswer


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_given_again_for_two_seconds_and_asked_anew_afterwards() -> None:
    answers, clock = iter([None, "it is away", None]), Clock()
    probe = RecentAnswer(lambda: next(answers), clock=clock)
    assert [probe(), probe()] == [None, None]
    clock.now = FRESH_SECONDS
    assert probe() is None
    clock.now = FRESH_SECONDS + 0.01
    assert [probe(), probe()] == ["it is away", "it is away"]
    clock.now = 2 * FRESH_SECONDS + 0.02
    assert probe() is None


def test_callers_that_come_together_share_one_question() -> None:
    asked, go_on, came = threading.Semaphore(0), threading.Event(), []

    def slow() -> str:
        asked.release()
        go_on.wait(10)
        return "slow"

    probe = RecentAnswer(slow)
    callers = [threading.Thread(target=lambda: came.append(probe())) for _ in range(8)]
    for caller in callers:
        caller.start()
    assert asked.acquire(timeout=10)
    go_on.set()
    for caller in callers:
        caller.join(10)
    assert came == ["slow"] * 8
    assert not asked.acquire(blocking=False)  # nobody asked a second time


def test_a_probe_that_raises_is_asked_again() -> None:
    answers = iter([ValueError("odd"), None])

    def ask() -> str | None:
        answer = next(answers)
        if answer is not None:
            raise answer
        return answer

    probe = RecentAnswer(ask)
    try:
        probe()
    except ValueError:
        assert probe() is None
    else:
        raise AssertionError("the first question raises")
