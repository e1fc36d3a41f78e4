"""Starts drivers as jobs of a Ray cluster, through the REST of its Jobs API.

The submission id is `<campaign>-a<attempt>`: a job that exists already is the one that was asked for, so a launch can
be repeated after a time-out. Status is a hint (a head that restarts forgets its jobs); ledger and heartbeats decide.
The entrypoint holds ids alone, never what a user wrote, and nothing secret travels in the job's environment, which the
Jobs API shows to whoever asks: the ledger's address and the token are in the environment of the cluster's nodes.
"""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Any

import httpx

from service.data_directory import DataDirectory
from service.errors import LauncherError

TIMEOUT_SECONDS = 10.0
_ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}
_STOPPED = -2  # what a process ends with that was interrupted
_KILLED = -9
_VARIABLES = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}

_log = logging.getLogger(__name__)


class RayJobDriver:
    """A driver that runs as a Ray job."""

    def __init__(self, client: httpx.Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id

    def poll(self) -> int | None:
        """Return the exit code, or None while the job lives; a job that the head has forgotten counts as killed."""
        job = read_job(self._client, self._job_id)
        if job is None:
            return _KILLED
        if job["status"] not in _ENDED:
            return None
        code = job.get("driver_exit_code")
        if code is not None:
            return int(code)
        return {"SUCCEEDED": 0, "STOPPED": _STOPPED}.get(job["status"], _KILLED)

    def request_stop(self) -> None:
        """Ask the driver to cancel: SIGINT, and SIGKILL a minute later."""
        _call(self._client, "POST", f"/api/jobs/{self._job_id}/stop")

    def request_pause(self) -> None:
        """Ask the driver to stop; the campaign stands as PAUSING, which is what becomes of it."""
        self.request_stop()

    def kill(self) -> None:
        """Ask for its end; the cluster gives it a minute."""
        self.request_stop()


class RayJobLauncher:
    """Starts `python -m service.driver` as a Ray job.

    Args:
        client: Speaks to the Jobs API.
        data: The data directory, at the same path on all nodes.
    """

    def __init__(self, client: httpx.Client, *, data: DataDirectory) -> None:
        self._client = client
        self._data = data

    @classmethod
    def connect(cls, address: str, *, data: DataDirectory) -> RayJobLauncher:
        """Speak to the Jobs API at an address, with the token of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."""
        token = os.environ.get("RAY_AUTH_TOKEN") or _read_token(os.environ.get("RAY_AUTH_TOKEN_PATH"))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return cls(httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT_SECONDS), data=data)

    def launch(self, campaign_id: str, attempt: int) -> RayJobDriver:
        """Start the driver of an attempt, once: a job of this id is not started again.

        Raises:
            LauncherError: The Jobs API cannot be reached, or refuses.
        """
        job_id = _job_id(campaign_id, attempt)
        arguments = ["--data-dir", str(self._data.root), "--campaign", campaign_id, "--attempt", str(attempt)]
        arguments += ["--exit-file", str(self._data.driver_exit(campaign_id, attempt))]
        job = {
            "submission_id": job_id,
            "entrypoint": f"exec python -P -m service.driver {shlex.join(arguments)}",
            "runtime_env": {"env_vars": _VARIABLES},
            "metadata": {"campaign": campaign_id, "attempt": str(attempt)},
        }
        try:
            answer = self._client.post("/api/jobs/", json=job)
            if answer.status_code == httpx.codes.OK:
                return RayJobDriver(self._client, job_id)
            reason = f"it answered {answer.status_code}"
        except httpx.HTTPError as error:
            reason = type(error).__name__
        if read_job(self._client, job_id) is not None:  # it was taken, though we were not told
            return RayJobDriver(self._client, job_id)
        raise LauncherError(f"the Ray Jobs API did not take job {job_id}: got {reason}")

    def find(self, campaign_id: str, attempt: int) -> RayJobDriver | None:
        """Find the job of an attempt; None where there is none or it has ended."""
        job = read_job(self._client, _job_id(campaign_id, attempt))
        return (
            None
            if job is None or job["status"] in _ENDED
            else RayJobDriver(self._client, _job_id(campaign_id, attempt))
        )

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        """Tell with what code the driver of an attempt ended; None where nobody knows."""
        try:
            return int(self._data.driver_exit(campaign_id, attempt).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def remains(self, campaign_id: str, attempt: int) -> list[str]:
        """Name the job of an attempt where it still lives."""
        job_id = _job_id(campaign_id, attempt)
        job = read_job(self._client, job_id)
        if job is None or job["status"] in _ENDED:
            return []
        _call(self._client, "POST", f"/api/jobs/{job_id}/stop")
        return [f"job {job_id} ({job['status']})"]


def read_job(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    """Read a job; None where the cluster knows none.

    Raises:
        LauncherError: The Jobs API cannot be reached, or refuses.
    """
    answer = _call(client, "GET", f"/api/jobs/{job_id}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    if answer.status_code != httpx.codes.OK:
        raise LauncherError(f"the Ray Jobs API refuses to tell about job {job_id}: got {answer.status_code}")
    job: dict[str, Any] = answer.json()
    return job


def _call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    try:
        return client.request(method, path)
    except httpx.HTTPError as error:
        raise LauncherError(f"the Ray Jobs API cannot be reached: got {type(error).__name__}") from error


def _job_id(campaign_id: str, attempt: int) -> str:
    return f"{campaign_id}-a{attempt}"


def _read_token(path: str | None) -> str | None:
    return Path(path).read_text(encoding="utf-8").strip() if path else None
