"""Whatever goes wrong with one campaign holds up no other; it backs off, is named, and is looked after again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.control.decisions import MAX_FAILURES
from spectune.service.control.trouble import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, Trouble
from tests.service.control.test_survival import state, submit
from tests.service.control.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def poison(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> list[str]:
    """Let something raise whenever it is asked for the campaign "a"; lists the calls."""
    launcher, ledger = world.reconciler._launcher, world.ledger
    calls: list[str] = []
    owner: Any = launcher if where in ("launch", "find", "end_remains") else ledger
    original: Callable[..., Any] = getattr(owner, where)

    def poisoned(campaign_id: str, *arguments: Any, **options: Any) -> Any:
        if campaign_id == "a":
            calls.append(where)
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
        return original(campaign_id, *arguments, **options)

    monkeypatch.setattr(owner, where, poisoned)
    return calls


def test_a_launch_that_raises_anything_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(world, "a")
    submit(world, "b")
    calls = poison(world, monkeypatch, "launch")
    for _ in range(400):
        world.tick()
    assert state(world, "b") is CampaignState.SUCCEEDED
    assert state(world, "a") is CampaignState.FAILED, "an attempt that never began counts as lost"
    assert len(calls) == MAX_FAILURES


@pytest.mark.parametrize("where", ["end_remains", "lose_attempt"])
def test_an_end_that_raises_anything_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="spectune.service.control")
    world.plans = [1]  # the first driver that works dies at once
    submit(world, "a")
    calls = poison(world, monkeypatch, where)
    submit(world, "b")
    for _ in range(30):
        world.tick()
    assert state(world, "b") is CampaignState.SUCCEEDED
    assert len(calls) == 1, "no back-off: it was tried at each of thirty looks"
    assert world.reconciler.problem() == "cannot be looked after just now: a"
    waiting_for = world.ledger.submission("a").waiting_for
    assert waiting_for.startswith("cannot be looked after just now: UnicodeEncodeError: ")
    assert len([each for each in caplog.records if "cannot be looked after" in each.message]) == 1
    monkeypatch.undo()
    world.reconciler._trouble = Trouble(clock=lambda: 1e9)  # its pause is over
    for _ in range(60):
        world.tick()
    assert state(world, "a") is CampaignState.SUCCEEDED
    assert world.reconciler.problem() is None


def test_a_document_that_admission_cannot_read_holds_up_no_other(world: World) -> None:
    world.ledger.submit("a", name="a", specification={"name": "a"}, owner="me")  # without resources
    submit(world, "b")
    for _ in range(20):
        world.tick()
    assert state(world, "b") is CampaignState.SUCCEEDED
    assert world.reconciler.problem() == "cannot be looked after just now: a"
    world.ledger.move_campaign("a", CampaignEvent.CANCEL, reason="user")
    for _ in range(5):
        world.tick()
    assert state(world, "a") is CampaignState.CANCELLED
    assert world.reconciler.problem() is None


def test_pauses_double_up_to_a_longest_and_end_with_the_trouble() -> None:
    now = 0.0
    trouble = Trouble(clock=lambda: now)
    pauses = []
    for _ in range(12):
        trouble.enter("a", RuntimeError("x"), state="RUNNING")
        began = now
        while trouble.is_waiting("a", state="RUNNING"):
            now += 0.5
            assert not trouble.is_waiting("a", state="CANCELLING"), "a user who cancels need not wait"
        pauses.append(now - began)
    assert pauses[:3] == [SHORTEST_PAUSE_SECONDS * factor for factor in (1, 2, 4)]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert trouble.clear("a")
    assert not trouble.clear("a")
    assert trouble.sentences() == {}
