"""A stop that is asked for before there is anybody to hear it is not lost."""

from __future__ import annotations

from spectune.service.driver.stop_kinds import StopKind, StopRequests


def test_stops_wait_for_who_is_to_hear_them_and_reach_it_at_once_from_then_on() -> None:
    requests: StopRequests[list[StopKind]] = StopRequests()
    requests.ask(lambda heard: heard.append(StopKind.PAUSE))
    heard: list[StopKind] = []
    requests.reach(heard)
    assert heard == [StopKind.PAUSE]
    requests.ask(lambda heard: heard.append(StopKind.CANCEL))
    assert heard == [StopKind.PAUSE, StopKind.CANCEL]
