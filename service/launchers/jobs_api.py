"""Ray's Jobs API over HTTP, as far as launching needs it; Ray itself is not imported.

Facts of Ray 2.60: a submission id that exists is answered by a 500; a stop that comes before the job's supervisor does
nothing and says so; jobs are kept in the head's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from spectune.service.errors import LauncherError

TIMEOUT_SECONDS = 20.0  # the first job of a head takes seconds
ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
_PROBE_SECONDS = 3.0


class JobsApi:
    """The Jobs API of one cluster.

    Args:
        client: Sends requests, with the token where there is one.
        address: Where the API is just now: a head that is replaced may listen elsewhere.
    """

    def __init__(self, client: httpx.Client, address: Callable[[], str]) -> None:
        self._client = client
        self._address = address

    @classmethod
    def connect(cls, address: Callable[[], str], *, token: str | None) -> JobsApi:
        """Speak to the API at an address."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return cls(httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False), address)

    def problem(self) -> str | None:
        """Return why it cannot be used just now; None where it answers."""
        try:
            answer = self._client.get(self._address() + "/api/jobs/", timeout=_PROBE_SECONDS)
        except httpx.HTTPError as error:
            return f"Ray does not answer at {self._address()}: {type(error).__name__}"
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return f"Ray at {self._address()} refuses the token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH)"
        return None if answer.status_code == httpx.codes.OK else f"Ray answers {answer.status_code}"

    def submit(self, job: dict[str, Any]) -> httpx.Response:
        """Ask for a job."""
        return self._call("POST", "/api/jobs/", json=job)

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Read a job; None where the cluster knows none.

        Raises:
            LauncherError: The API cannot be reached, or refuses.
        """
        answer = self._call("GET", f"/api/jobs/{job_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise LauncherError(f"the Ray Jobs API refuses to tell about job {job_id}: got {answer.status_code}")
        job: dict[str, Any] = answer.json()
        return job

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; tell whether somebody was there to be asked."""
        answer = self._call("POST", f"/api/jobs/{job_id}/stop")
        return answer.status_code == httpx.codes.OK and bool(answer.json().get("stopped"))

    def living_actors(self, ray_job_id: str) -> list[str]:
        """Name the actors of a job that live, by Ray's own id of it."""
        filters = [("job_id", "=", ray_job_id), ("state", "!=", "DEAD")]
        query = [
            (name, value)
            for each in filters
            for name, value in zip(("filter_keys", "filter_predicates", "filter_values"), each, strict=True)
        ]
        answer = self._call("GET", "/api/v0/actors", params=[*query, ("limit", "100")])
        if answer.status_code != httpx.codes.OK:
            raise LauncherError(f"Ray refuses to tell about the actors of job {ray_job_id}: got {answer.status_code}")
        found = answer.json()["data"]["result"]["result"]
        return [f"{each['class_name']} (process {each['pid']} of node {each['node_id'][:8]})" for each in found]

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, self._address() + path, **options)
        except httpx.HTTPError as error:
            raise LauncherError(f"the Ray Jobs API cannot be reached: got {type(error).__name__}") from error


def environment_token() -> str | None:
    """Read the token of a cluster that is not ours, where Ray's own programs look for it."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return os.environ.get("RAY_AUTH_TOKEN") or (Path(path).read_text(encoding="utf-8").strip() if path else None)
