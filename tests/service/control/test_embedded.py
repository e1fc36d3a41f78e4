"""A campaign that its owner runs: drivers die, refuse and dawdle, and the campaign always comes to rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.control.embedded import (
    MAX_ATTEMPTS,
    RELAUNCH_SECONDS,
    STOP_SECONDS,
    EmbeddedCampaign,
    settle_orphans,
)
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.errors import CampaignBusyError, CampaignNotFoundError, IllegalTransitionError, TrackingError
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.spool import Spool
from spectune.service.tracking import projection
from spectune.service.tracking.projection import Projection
from spectune.service.tracking.projector import Projector
from tests.fakes.tracker import FakeTracker

KILLED = -9


class FakeDriver:
    """A driver that ends when the test says so."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.stops_asked = 0
        self.pauses_asked = 0
        self.kills = 0

    def poll(self) -> int | None:
        return self.exit_code

    def request_stop(self) -> None:
        self.stops_asked += 1

    def request_pause(self) -> None:
        self.pauses_asked += 1

    def kill(self) -> None:
        self.kills += 1
        if self.exit_code is None:
            self.exit_code = KILLED


class FakeLauncher:
    """Starts fake drivers and claims the campaign for them, as a real one does first."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.drivers: list[FakeDriver] = []

    def launch(self, campaign_id: str, attempt: int) -> FakeDriver:
        self._ledger.claim_attempt(campaign_id, attempt)
        self._ledger.move_campaign(campaign_id, CampaignEvent.CLAIM, reason="driver_started", attempt=attempt)
        self.drivers.append(FakeDriver())
        return self.drivers[-1]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.data = DataDirectory(folder)
        self.ledger = Ledger.at(folder / "ledger.sqlite")
        self.launcher = FakeLauncher(self.ledger)
        self.campaign = EmbeddedCampaign(
            self.ledger, self.launcher, data=self.data, campaign_id="c", clock=lambda: self.now
        )
        self.campaign.start(name="test", specification={"objective": {"mode": "minimize"}, "arms": [{"name": "a"}]})

    def watch_until_relaunched(self) -> bool:
        """Watch now, and once more when the pause before the next attempt is over."""
        at_rest = self.campaign.watch()
        self.now += RELAUNCH_SECONDS * MAX_ATTEMPTS
        return at_rest or self.campaign.watch()

    @property
    def driver(self) -> FakeDriver:
        return self.launcher.drivers[-1]

    @property
    def state(self) -> CampaignState:
        return self.campaign.record().state

    def create_trial(self) -> None:
        """Write a running trial down the way a driver does: on its spool only, which the ledger has not read yet."""
        place = {"arm": 0, "point": 0, "seed_index": 0, "config": {}, "ask": {}}
        created = entries.trial_created(trial=0, at=1, **place)  # type: ignore[arg-type]
        started = entries.trial_moved(trial=0, state=TrialState.RUNNING, reason="assigned", at=1)
        with Spool(self.data.spool("c", len(self.launcher.drivers))) as spool:
            spool.append([created, started])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.campaign.close()
    bench.ledger.close()


def test_a_campaign_rests_when_its_driver_says_that_it_is_done(bench: Bench) -> None:
    assert not bench.campaign.watch()
    bench.ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended", attempt=1)
    bench.driver.exit_code = ExitCode.DONE
    assert bench.campaign.watch()
    assert bench.state is CampaignState.SUCCEEDED
    assert bench.driver.kills == 1, "whatever outlived the driver is ended"


@pytest.mark.parametrize("exit_code", [KILLED, ExitCode.INFRASTRUCTURE, ExitCode.FENCED, 1])
def test_a_lost_driver_is_replaced(bench: Bench, exit_code: int) -> None:
    bench.driver.exit_code = exit_code
    assert not bench.campaign.watch()
    assert (len(bench.launcher.drivers), bench.state) == (1, CampaignState.QUEUED), "not before the pause is over"
    assert not bench.watch_until_relaunched()
    assert (len(bench.launcher.drivers), bench.state) == (2, CampaignState.RUNNING)
    assert bench.campaign.record().attempt == 2


def test_a_campaign_that_loses_every_driver_fails_and_leaves_no_trial_open(bench: Bench) -> None:
    bench.create_trial()
    for _ in range(MAX_ATTEMPTS):
        bench.driver.exit_code = KILLED
        at_rest = bench.watch_until_relaunched()
    assert at_rest
    assert bench.state is CampaignState.FAILED
    assert "its exit code was -9" in bench.campaign.record().message
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.LOST]


def test_a_paused_campaign_is_resumed_with_a_new_attempt_and_all_its_tries(bench: Bench) -> None:
    bench.create_trial()
    bench.campaign.close()  # as the kernel does for an owner that was killed
    assert settle_orphans(bench.ledger, bench.data) == ["c"]
    fence = bench.ledger.campaign("c").attempt
    again = EmbeddedCampaign(bench.ledger, bench.launcher, data=bench.data, campaign_id="c", clock=lambda: bench.now)
    again.resume()
    bench.campaign = again
    assert (bench.state, again.record().attempt) == (CampaignState.RUNNING, fence + 1)
    assert [trial.state for trial in again.trials()] == [TrialState.PENDING]
    for _ in range(MAX_ATTEMPTS - 1):
        bench.driver.exit_code = KILLED
        assert not bench.watch_until_relaunched()


def test_only_a_paused_campaign_that_nobody_runs_is_resumed(bench: Bench) -> None:
    other = EmbeddedCampaign(bench.ledger, bench.launcher, data=bench.data, campaign_id="c")
    with pytest.raises(CampaignBusyError, match="got 'c'"):
        other.resume()
    bench.ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended", attempt=1)
    bench.driver.exit_code = ExitCode.DONE
    bench.campaign.watch()
    with pytest.raises(IllegalTransitionError, match="SUCCEEDED"):
        other.resume()
    unknown = EmbeddedCampaign(bench.ledger, bench.launcher, data=bench.data, campaign_id="x")
    with pytest.raises(CampaignNotFoundError, match="got 'x'"):
        unknown.resume()


def test_an_accepted_campaign_that_this_machine_refuses_is_paused_with_the_cause(bench: Bench) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        reason = bench.data.driver_reason("c", attempt)
        reason.parent.mkdir(parents=True, exist_ok=True)
        reason.write_text("/task/corpus: no such folder: got 'text'")
        bench.driver.exit_code = ExitCode.SPECIFICATION
        bench.campaign.watch()
        if attempt < MAX_ATTEMPTS:
            assert bench.state is CampaignState.QUEUED
            assert "no such folder" in bench.campaign.record().message
            assert not bench.watch_until_relaunched()
    assert bench.state is CampaignState.PAUSED
    assert bench.campaign.record().message == (
        "the campaign cannot be trained on this machine as it is now: /task/corpus: no such folder: got 'text'"
    )
    bench.campaign.resume()  # whoever mends it
    assert bench.state is CampaignState.RUNNING


def test_a_cluster_that_is_away_never_fails_a_campaign(bench: Bench) -> None:
    for _ in range(3 * MAX_ATTEMPTS):
        bench.driver.exit_code = ExitCode.CLUSTER_AWAY
        assert not bench.campaign.watch()
        assert bench.campaign.record().reason == "cluster_away"
        assert not bench.watch_until_relaunched()
    assert bench.state is CampaignState.RUNNING


def test_losses_count_in_a_row_without_an_observation_between(bench: Bench) -> None:
    for attempt in range(1, 3 * MAX_ATTEMPTS):
        observed = entries.observation(
            trial=attempt, step=1, metrics={"loss": 1.0}, objective=1.0, device_seconds=1.0, produced_at=1
        )
        created = entries.trial_created(trial=attempt, arm=0, point=attempt, seed_index=0, config={}, ask={}, at=1)
        bench.ledger.append("c", attempt, [(1, created), (2, observed)])
        bench.driver.exit_code = KILLED
        assert not bench.campaign.watch()
        assert not bench.watch_until_relaunched()
    assert bench.state is CampaignState.RUNNING


def test_a_cancel_is_asked_of_the_driver_and_counts_only_when_it_is_gone(bench: Bench) -> None:
    bench.campaign.cancel()
    assert (bench.driver.stops_asked, bench.state) == (1, CampaignState.CANCELLING)
    assert not bench.campaign.watch()
    bench.driver.exit_code = ExitCode.CANCELLED
    assert bench.campaign.watch()
    assert bench.state is CampaignState.CANCELLED


@pytest.mark.parametrize("exit_code", [KILLED, ExitCode.INFRASTRUCTURE])
def test_a_driver_that_dies_while_it_is_cancelled_leaves_no_trial_open(bench: Bench, exit_code: int) -> None:
    bench.create_trial()
    bench.campaign.cancel()
    bench.driver.exit_code = exit_code
    assert bench.campaign.watch()
    assert bench.state is CampaignState.CANCELLED
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.CANCELLED]


def test_a_second_cancel_ends_the_driver_at_once(bench: Bench) -> None:
    bench.campaign.cancel()
    bench.campaign.cancel()
    assert bench.driver.kills == 1
    assert bench.campaign.watch()
    assert bench.state is CampaignState.CANCELLED


def test_a_cancel_between_two_attempts_needs_no_driver(bench: Bench) -> None:
    bench.create_trial()
    bench.driver.exit_code = KILLED
    bench.campaign.watch()
    bench.campaign.cancel()
    assert bench.campaign.watch()
    assert (bench.state, len(bench.launcher.drivers)) == (CampaignState.CANCELLED, 1)
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.CANCELLED]


def test_a_pause_is_asked_of_the_driver_which_pauses_the_campaign(bench: Bench) -> None:
    bench.campaign.pause()
    assert (bench.driver.pauses_asked, bench.driver.stops_asked, bench.state) == (1, 0, CampaignState.PAUSING)
    assert not bench.campaign.watch()
    bench.ledger.move_campaign("c", CampaignEvent.HALT, reason="driver_asked", attempt=1)
    bench.driver.exit_code = ExitCode.PAUSED
    assert bench.campaign.watch()
    bench.campaign.resume()
    assert (bench.state, len(bench.launcher.drivers)) == (CampaignState.RUNNING, 2)


@pytest.mark.parametrize("exit_code", [KILLED, -15, ExitCode.INFRASTRUCTURE, 1])
def test_a_driver_that_dies_while_it_pauses_leaves_a_campaign_to_be_resumed(bench: Bench, exit_code: int) -> None:
    bench.create_trial()
    bench.campaign.pause()
    bench.driver.exit_code = exit_code
    assert bench.campaign.watch()
    assert bench.state is CampaignState.PAUSED
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.PENDING]


def test_a_driver_that_does_not_pause_is_killed_after_a_while(bench: Bench) -> None:
    bench.campaign.pause()
    bench.now += STOP_SECONDS + 1
    assert not bench.campaign.watch()
    assert bench.driver.kills == 1
    assert bench.campaign.watch()
    assert bench.state is CampaignState.PAUSED


def test_a_pause_between_two_attempts_needs_no_driver(bench: Bench) -> None:
    bench.create_trial()
    bench.driver.exit_code = KILLED
    bench.campaign.watch()
    bench.campaign.pause()
    assert bench.campaign.watch()
    assert (bench.state, len(bench.launcher.drivers)) == (CampaignState.PAUSED, 1)
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.PENDING]


def test_a_cancel_after_a_pause_cancels(bench: Bench) -> None:
    bench.campaign.pause()
    bench.campaign.cancel()
    bench.campaign.kill()
    assert bench.campaign.watch()
    assert bench.state is CampaignState.CANCELLED


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"starting\nvalidate_socket_filename failed: too long\n\n", ": validate_socket_filename failed"),
        (b"x" * 9000 + b"\nlast \x1b[31mred\xff\x00\r\n", ": last [31mred"),
        (b"", "its exit code was -9"),
        (b"\n \n", "its exit code was -9"),
    ],
)
def test_the_message_of_a_lost_campaign_has_the_last_line_of_its_log(bench: Bench, log: bytes, words: str) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bench.data.driver_log("c", attempt).write_bytes(log)
        bench.driver.exit_code = KILLED
        bench.watch_until_relaunched()
    assert bench.state is CampaignState.FAILED
    assert words in bench.campaign.record().message
    assert bench.campaign.record().message.isprintable()


def test_a_cancel_in_the_moment_of_success_changes_nothing(bench: Bench) -> None:
    bench.ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended", attempt=1)
    bench.campaign.cancel()
    bench.driver.exit_code = ExitCode.DONE
    assert bench.campaign.watch()
    assert bench.state is CampaignState.SUCCEEDED


def test_a_driver_that_somebody_else_interrupted_cancels_the_campaign(bench: Bench) -> None:
    bench.create_trial()
    bench.driver.exit_code = ExitCode.CANCELLED
    assert bench.campaign.watch()
    assert (bench.state, len(bench.launcher.drivers)) == (CampaignState.CANCELLED, 1)


def test_a_campaign_with_a_living_owner_is_no_orphan(bench: Bench) -> None:
    assert settle_orphans(bench.ledger, bench.data) == []
    assert bench.state is CampaignState.RUNNING


def test_a_campaign_whose_owner_and_driver_were_killed_is_paused_with_all_that_was_decided(bench: Bench) -> None:
    bench.create_trial()
    bench.campaign.close()  # what the kernel does when a process dies
    assert settle_orphans(bench.ledger, bench.data) == ["c"]
    assert bench.state is CampaignState.PAUSED
    assert [trial.state for trial in bench.campaign.trials()] == [TrialState.PENDING]
    assert settle_orphans(bench.ledger, bench.data) == []


def test_a_projection_that_never_succeeds_says_why_and_holds_nothing_up(bench: Bench) -> None:
    def unreachable() -> list[Projector]:
        raise ConnectionError("connection refused")

    with pytest.raises(TrackingError, match="got an interrupt"):
        Projection(unreachable).finish(give_up=lambda: True)


def test_the_end_of_a_projection_that_waits_says_for_what(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "SILENT_SECONDS", 0.05)
    told: list[str] = []

    def unreachable() -> list[Projector]:
        raise ConnectionError("connection refused")

    with pytest.raises(TrackingError, match="got an interrupt"):
        Projection(unreachable).finish(give_up=lambda: bool(told), on_wait=told.append)
    assert told == [
        "waiting for MLflow, which fails so far (connection refused); Ctrl-C leaves the rest to the next run"
    ]


def test_a_projection_brings_everything_over_before_it_ends(bench: Bench) -> None:
    tracker = FakeTracker()
    assert Projection(lambda: [Projector(bench.ledger, tracker, "c")]).finish() == "fake://c"
    assert tracker.campaign_states == {"c": "RUNNING"}


def test_an_orphan_that_cannot_be_brought_to_rest_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.campaign.close()  # as if its process were killed
    for name in ("poisoned", "sound"):
        bench.ledger.create_campaign(name, name=name, specification={})
    begin = Ledger.begin_attempt

    def poisoned(ledger: Ledger, campaign_id: str) -> int:
        if campaign_id == "poisoned":
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
        return begin(ledger, campaign_id)

    monkeypatch.setattr(Ledger, "begin_attempt", poisoned)
    assert sorted(settle_orphans(bench.ledger, bench.data)) == ["c", "sound"]
    assert "campaign poisoned cannot be brought to rest" in caplog.text
