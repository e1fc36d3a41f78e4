"""A tracker that fails is left alone, twice as long each time, and at once taken up again when it answers."""

from __future__ import annotations

from spectune.service.tracking.breaker import FIRST_SECONDS, LONGEST_SECONDS, Breaker


def test_it_waits_twice_as_long_after_each_failure_up_to_a_bound() -> None:
    breaker = Breaker(clock=lambda: 0.0)
    waits = [breaker.fail() for _ in range(8)]
    assert waits[:4] == [FIRST_SECONDS * 2**power for power in range(4)]
    assert waits[-1] == LONGEST_SECONDS


def test_it_is_open_until_the_wait_is_over() -> None:
    now = 100.0
    breaker = Breaker(clock=lambda: now)
    assert not breaker.is_open()
    now += breaker.fail() / 2
    assert breaker.is_open()
    now += LONGEST_SECONDS
    assert not breaker.is_open()


def test_a_success_forgets_the_failures() -> None:
    breaker = Breaker(clock=lambda: 0.0)
    for _ in range(5):
        breaker.fail()
    breaker.succeed()
    assert not breaker.is_open()
    assert breaker.fail() == FIRST_SECONDS
