"""The reconciler killed at any point: no campaign is lost, none runs twice, a cancel stays a cancel."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.control.decisions import MAX_FAILURES
from spectune.service.errors import IllegalTransitionError
from spectune.service.ledger.submissions import LEADER
from tests.service.control.world import KILLED, SPECIFICATION, World

NAMES = ("a", "b", "c")


def submit(world: World, name: str) -> None:
    world.ledger.submit(name, name=name, specification=SPECIFICATION, owner="me")


def state(world: World, name: str) -> CampaignState:
    return world.ledger.submission(name).campaign.state


def settle(world: World) -> None:
    """Let time pass until nothing is left to do."""
    for _ in range(200):
        for name in NAMES:
            with suppress(Exception):
                world.ledger.set_going(name, CampaignEvent.RESUME)
        if all(each.campaign.state.is_terminal for each in world.ledger.submissions(limit=9)):
            world.tick()
            return
        world.tick()
    raise AssertionError(f"not all campaigns ended: {[state(world, name) for name in NAMES]}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_campaign_is_launched_once_and_succeeds(world: World) -> None:
    submit(world, "a")
    for _ in range(14):
        world.tick()
    assert state(world, "a") is CampaignState.SUCCEEDED
    assert [driver.attempt for driver in world.drivers] == [1]
    assert [attempt.exit_code for attempt in world.ledger.attempts("a")] == [0]


def test_a_driver_that_runs_is_adopted_by_the_next_service_and_not_restarted(world: World) -> None:
    submit(world, "a")
    for _ in range(2):
        world.tick()
    world.ledger.leave_lease(LEADER, holder="service-0")
    world.reconciler = world.new_service()
    for _ in range(14):
        world.tick()
    assert state(world, "a") is CampaignState.SUCCEEDED
    assert [driver.exit_code for driver in world.drivers] == [0]


def test_a_driver_that_dies_is_replaced_after_a_pause_and_three_are_enough(tmp_path: Path) -> None:
    world = World(tmp_path, plans=[1] * MAX_FAILURES)
    submit(world, "a")
    for _ in range(40):
        world.tick()
    campaign = world.ledger.submission("a").campaign
    assert (campaign.state, campaign.reason) == (CampaignState.FAILED, "driver_lost")
    assert len(world.drivers) == MAX_FAILURES


def test_those_who_wait_are_told_their_place_and_what_for(world: World) -> None:
    for name in NAMES:
        submit(world, name)
    world.tick()
    waiting = world.ledger.submission("c")
    assert (waiting.queue_position, waiting.waiting_for) == (1, "the service runs 2 campaigns already, its most")


def test_while_nothing_can_be_launched_those_who_wait_are_told_why_and_no_attempt_is_lost(world: World) -> None:
    submit(world, "a")
    world.launch_problem = "Ray does not answer"
    for _ in range(3):
        world.tick()
    waiting = world.ledger.submission("a")
    assert (waiting.campaign.attempt, waiting.waiting_for) == (0, "nothing can be launched: Ray does not answer")
    world.launch_problem = None
    settle(world)
    assert [driver.attempt for driver in world.drivers] == [1]


def test_trouble_that_lasts_is_said_once_and_so_is_how_it_ended(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """While a Ray head was away, the log had the same line every two seconds."""
    caplog.set_level(logging.INFO)
    submit(world, "a")
    for _ in range(2):
        world.tick()
    for problem in ("Ray does not answer", None, "Ray does not answer"):
        world.launch_problem = problem
        for _ in range(3):
            world.tick()
    world.launch_problem = None
    settle(world)
    said = [each.message for each in caplog.records]
    assert said.count("campaign a: Ray does not answer") == 2
    assert "campaign a: SUCCEEDED after attempt 1" in said


def test_a_replica_without_the_lease_does_nothing_until_it_ends(world: World) -> None:
    submit(world, "a")
    other = world.new_service()
    other._holder = "other"
    world.tick()
    assert not other.tick()
    assert len(world.drivers) == 1
    world.time += 11_000
    assert other.tick()
    assert len(world.drivers) == 1


def test_a_paused_campaign_holds_nothing_and_goes_on_when_resumed(world: World) -> None:
    submit(world, "a")
    for _ in range(2):
        world.tick()
    world.ledger.move_campaign("a", CampaignEvent.PAUSE, reason="user")
    for _ in range(3):
        world.tick()
    assert state(world, "a") is CampaignState.PAUSED
    assert world.drivers[0].exit_code is not None
    settle(world)
    assert state(world, "a") is CampaignState.SUCCEEDED


@settings(max_examples=25, deadline=None)
@given(
    kill_at=st.sets(st.integers(1, 40), max_size=4),
    plans=st.lists(st.sampled_from([0, 0, 1, 5]), max_size=3),
    deeds=st.lists(
        st.tuples(
            st.integers(0, 12), st.sampled_from(NAMES), st.sampled_from([CampaignEvent.CANCEL, CampaignEvent.PAUSE])
        ),
        max_size=3,
    ),
)
def test_whenever_it_is_killed_nothing_is_lost_and_nothing_runs_twice(
    kill_at: set[int], plans: list[int], deeds: list[tuple[int, str, CampaignEvent]]
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder), kill_at=kill_at, plans=list(plans))
        cancelled = set()
        for name in NAMES:
            submit(world, name)
        for number in range(14):
            for when, name, event in deeds:
                if when == number:
                    with suppress(IllegalTransitionError):
                        world.ledger.move_campaign(name, event, reason="user")
                        cancelled |= {name} if event is CampaignEvent.CANCEL else set()
            world.tick()
        settle(world)
        for name in NAMES:
            assert (state(world, name) is CampaignState.CANCELLED) == (name in cancelled)
            assert all(driver.exit_code is not None for driver in world.drivers if driver.campaign_id == name)
            changes = world.ledger.changes(name, after=0, limit=10_000)
            assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
            done = [each for each in world.drivers if each.campaign_id == name and each.exit_code == 0]
            assert len(done) == (state(world, name) is CampaignState.SUCCEEDED)
        world.ledger.close()


def test_no_attempt_begins_while_the_driver_of_the_one_before_still_ends(world: World) -> None:
    """A driver moves its campaign to its end, and then takes seconds to end its Ray; a user who retries was faster."""
    submit(world, "a")
    for _ in range(3):
        world.tick()
    (first,) = world.drivers
    first.work = 10**6
    world.ledger.move_campaign("a", CampaignEvent.FAIL, reason="driver", attempt=1)  # and its process lives on
    world.ledger.set_going("a", CampaignEvent.RETRY)
    world.tick()
    assert len(world.drivers) == 1
    assert world.ledger.submission("a").waiting_for == "waits for the end of attempt 1"
    first.kill()
    world.tick()
    assert [each.attempt for each in world.drivers] == [1, 2]


def test_a_driver_on_a_machine_of_its_own_is_not_replaced_while_its_heart_beats(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ray head that restarts has forgotten its jobs, and their processes may live."""
    launcher = world.reconciler._launcher
    monkeypatch.setattr(launcher, "sees_processes", False, raising=False)
    submit(world, "a")
    for _ in range(3):
        world.tick()
    (first,) = world.drivers
    first.work = 10**6
    monkeypatch.setattr(type(first), "poll", lambda self: KILLED if self is first else self.exit_code)
    monkeypatch.setattr(launcher, "find", lambda campaign_id, attempt: None)
    for _ in range(30):
        world.tick()
    assert len(world.drivers) == 1, "a second driver beside a living one"
    first.kill()  # now it is gone
    for _ in range(30):
        world.tick()
    assert [each.attempt for each in world.drivers[:2]] == [1, 2]
