"""Drivers as Ray jobs, against a small Jobs API that fails the way the real one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from spectune.service.data_directory import DataDirectory
from spectune.service.errors import LauncherError
from spectune.service.launchers import JobsApi, RayJobLauncher


class FakeJobs:
    """The Jobs API: a duplicate is a 500, an unknown job a 404."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.stopped: list[str] = []
        self.actors: list[dict[str, Any]] = []
        self.lose_answers = self.is_away = self.has_no_supervisor = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("refused")
        name = request.url.path.removeprefix("/api/jobs/")
        if request.method == "POST" and not name:
            job = json.loads(request.content)
            if job["submission_id"] in self.jobs:
                return httpx.Response(500, text="already exists. Please use a different submission_id")
            self.jobs[job["submission_id"]] = {"status": "RUNNING", "driver_exit_code": None, "asked": job}
            if self.lose_answers:
                raise httpx.ReadTimeout("lost")
            return httpx.Response(200, json={"submission_id": job["submission_id"]})
        if name.endswith("/stop"):
            self.stopped.append(name.removesuffix("/stop"))
            return httpx.Response(200, json={"stopped": not self.has_no_supervisor})
        if request.url.path == "/api/v0/actors":
            assert request.url.params.get_list("filter_values") == ["0200", "DEAD"]
            return httpx.Response(200, json={"data": {"result": {"result": self.actors}}})
        return httpx.Response(200, json=self.jobs[name]) if name in self.jobs else httpx.Response(404)


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def launcher(jobs: FakeJobs, tmp_path: Path) -> RayJobLauncher:
    api = JobsApi(httpx.Client(transport=httpx.MockTransport(jobs.answer)), lambda: "http://ray")
    return RayJobLauncher(api, data=DataDirectory(tmp_path), num_cpus=2, python="/of/the/image/python")


def test_an_attempt_is_a_job_of_its_name_with_nothing_secret(
    jobs: FakeJobs, launcher: RayJobLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECTUNE_DATABASE_URL", "postgresql://me:s3cret@host/x")
    launcher.launch("c", 2)
    asked = jobs.jobs["c-a2"]["asked"]
    assert asked["entrypoint"].startswith("exec /of/the/image/python -P -m spectune.service.driver --data-dir")
    assert asked["runtime_env"]["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert "s3cret" not in json.dumps(asked)


@pytest.mark.parametrize("lose_answers", [False, True])
def test_a_launch_that_is_repeated_or_whose_answer_is_lost_makes_one_job(
    jobs: FakeJobs, launcher: RayJobLauncher, lose_answers: bool
) -> None:
    jobs.lose_answers = lose_answers
    for _ in range(2):
        assert launcher.launch("c", 1).poll() is None
    assert list(jobs.jobs) == ["c-a1"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("PENDING", None, None), ("SUCCEEDED", None, 0), ("FAILED", 20, 20), ("FAILED", None, -9), ("STOPPED", None, -2)],
)
def test_a_job_that_ended_says_how(
    jobs: FakeJobs, launcher: RayJobLauncher, status: str, code: int | None, expected: int | None
) -> None:
    driver = launcher.launch("c", 1)
    jobs.jobs["c-a1"] |= {"status": status, "driver_exit_code": code}
    assert driver.poll() == expected


def test_a_head_that_forgot_its_jobs_leaves_nothing_and_one_that_is_away_leaves_everything_open(
    jobs: FakeJobs, launcher: RayJobLauncher
) -> None:
    driver = launcher.launch("c", 1)
    assert launcher.find("c", 1) is not None
    assert launcher.end_remains("c", 1) == ["job c-a1 (RUNNING)"]
    assert jobs.stopped == ["c-a1"]
    jobs.is_away = True
    for ask in (driver.poll, driver.request_stop, lambda: launcher.find("c", 1), lambda: launcher.launch("c", 2)):
        with pytest.raises(LauncherError):
            ask()
    jobs.is_away = False
    jobs.jobs.clear()
    assert (driver.poll(), launcher.find("c", 1), launcher.end_remains("c", 1)) == (-9, None, [])


def test_a_job_that_has_not_begun_is_asked_again_and_one_that_left_its_code_is_believed(
    jobs: FakeJobs, launcher: RayJobLauncher, tmp_path: Path
) -> None:
    driver = launcher.launch("c", 1)
    jobs.has_no_supervisor = True
    with pytest.raises(LauncherError, match="has not begun"):
        driver.request_stop()
    jobs.has_no_supervisor = False
    driver.request_pause()
    DataDirectory(tmp_path).driver_exit("c", 1).write_text("11", encoding="ascii")
    assert driver.poll() is None  # it says so a moment before it ends
    jobs.jobs["c-a1"]["status"] = "STOPPED"
    assert (driver.poll(), launcher.exit_code("c", 1)) == (11, 11)


def test_a_job_that_ended_holds_a_cancel_up_while_one_of_its_actors_lives(
    jobs: FakeJobs, launcher: RayJobLauncher
) -> None:
    launcher.launch("c", 1)
    jobs.jobs["c-a1"] |= {"status": "FAILED", "job_id": "0200"}
    jobs.actors = [{"class_name": "CohortSlot", "pid": 7, "node_id": "af0a9914c841"}]
    assert launcher.end_remains("c", 1) == ["CohortSlot (process 7 of node af0a9914)"]
    jobs.actors = []
    assert launcher.end_remains("c", 1) == []


def test_what_keeps_ray_from_launching_is_one_sentence(jobs: FakeJobs, launcher: RayJobLauncher) -> None:
    assert launcher.problem() == "Ray answers 404"
    jobs.is_away = True
    assert launcher.problem() == "Ray does not answer at http://ray: ConnectError"
