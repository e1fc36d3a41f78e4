"""The queue: priority, then fair shares, then arrival; nobody overtakes what does not fit."""

from __future__ import annotations

from typing import Any

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.campaign.model.submission import Submission
from spectune.service.control.admission import Admission, Capacity, admit

NOW = 1_000_000


def submission(
    campaign_id: str,
    *,
    owner: str = "me",
    priority: int = 0,
    cpus: int = 1,
    at: int = 0,
    not_before: int = 0,
    gpus: float = 0,
) -> Submission:
    resources = {"resources": {"workers": cpus, "cpus": 1, "gpus": gpus}}
    place: dict[str, Any] = {"name": "x", "reason": "", "message": "", "since": 0, "attempt": 0, "sequence": 1}
    campaign = CampaignRecord(
        campaign_id=campaign_id, state=CampaignState.QUEUED, created_at=at, specification=resources, **place
    )
    own: dict[str, Any] = {"version": 1, "num_failures": 0, "queue_position": None, "waiting_for": ""}
    return Submission(campaign=campaign, owner=owner, priority=priority, not_before=not_before, **own)


def names(admission: Admission) -> list[str]:
    return [each.campaign_id for each in admission.launched]


def waits(admission: Admission) -> dict[str, tuple[int | None, str]]:
    return {place.submission.campaign_id: (place.position, place.waiting_for) for place in admission.waiting}


def test_the_highest_priority_comes_first_then_the_first_that_came() -> None:
    queued = [submission("a", at=3), submission("b", at=1), submission("c", at=2, priority=1)]
    assert names(admit(queued, [], capacity=Capacity(8, 8), now=NOW)) == ["c", "b", "a"]


def test_of_equal_priority_the_owner_who_holds_less_comes_first() -> None:
    mine = [submission(f"m{number}", at=number) for number in range(3)]
    yours = [submission(f"y{number}", owner="you", at=10 + number) for number in range(2)]
    running = [submission("r", cpus=2)]
    assert names(admit([*mine, *yours], running, capacity=Capacity(6, 8), now=NOW)) == ["y0", "y1", "m0", "m1"]


def test_what_does_not_fit_holds_back_what_stands_behind_it() -> None:
    queued = [submission("large", cpus=4, at=1), submission("small", at=2)]
    admission = admit(queued, [submission("r", cpus=2)], capacity=Capacity(4, 8), now=NOW)
    assert names(admission) == []
    assert waits(admission) == {"large": (1, "needs 4 CPUs, 2 of 4 are in use"), "small": (2, "waits for its turn")}


def test_what_is_larger_than_the_service_runs_alone() -> None:
    large = submission("large", cpus=64)
    assert names(admit([large], [], capacity=Capacity(4, 8), now=NOW)) == ["large"]
    assert names(admit([large], [submission("r")], capacity=Capacity(4, 8), now=NOW)) == []


def test_no_more_run_than_the_service_may() -> None:
    queued = [submission(f"c{number}", at=number) for number in range(3)]
    admission = admit(queued, [], capacity=Capacity(8, 2), now=NOW)
    assert names(admission) == ["c0", "c1"]
    assert waits(admission) == {"c2": (1, "the service runs 2 campaigns already, its most")}


def test_what_pauses_after_a_lost_attempt_holds_back_nobody_and_has_no_place() -> None:
    queued = [submission("lost", at=1, not_before=NOW + 5000), submission("next", at=2)]
    admission = admit(queued, [], capacity=Capacity(1, 8), now=NOW)
    assert names(admission) == ["next"]
    assert waits(admission) == {"lost": (None, "waits until 00:16:45 UTC after a lost attempt")}


def test_gpus_are_shared_out_like_cpus_where_it_is_known_how_many_there_are() -> None:
    queued = [submission("whole", cpus=2, gpus=1, at=1), submission("none", at=2)]
    running = [submission("r", cpus=3, gpus=0.1)]
    admission = admit(queued, running, capacity=Capacity(16, 8, num_gpus=2), now=NOW)
    assert names(admission) == []
    assert waits(admission)["whole"] == (1, "needs 2 GPUs, 0.3 of 2 are in use")
    assert names(admit(queued, running, capacity=Capacity(16, 8), now=NOW)) == ["whole", "none"]


def test_parts_of_a_gpu_fill_it_and_more_than_there_are_wait_for_nobody_else() -> None:
    running = [submission("r", cpus=3, gpus=0.1)]
    parts = [submission("parts", cpus=7, gpus=0.1)]
    assert names(admit(parts, running, capacity=Capacity(16, 8, num_gpus=1), now=NOW)) == ["parts"]
    large = [submission("large", cpus=2, gpus=1)]
    assert names(admit(large, [], capacity=Capacity(16, 8, num_gpus=1), now=NOW)) == ["large"]
    assert names(admit(large, running, capacity=Capacity(16, 8, num_gpus=1), now=NOW)) == []
