"""Starts drivers as jobs of a Ray cluster, through the REST of its Jobs API.

The submission id is `<campaign>-a<attempt>`: a job that exists already is the one that was asked for, so a launch can
be repeated after a time-out. Status is a hint (a head that restarts forgets its jobs); ledger and heartbeats decide.
The entrypoint holds ids alone, never what a user wrote, and nothing secret travels in the job's environment, which the
Jobs API shows to whoever asks: the ledger's address and the token are in the environment of the cluster's nodes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress

import httpx

from spectune.service.data_directory import DataDirectory
from spectune.service.driver.environment import job_environment
from spectune.service.errors import LauncherError
from spectune.service.launchers.jobs_api import ENDED, JobsApi
from spectune.service.launchers.process_tags import MARK, attempt_mark, kill_marked, marked, process_name

_STOPPED = -2  # what a process ends with that was interrupted
_KILLED = -9


class RayJobDriver:
    """A driver that runs as a Ray job."""

    def __init__(self, launcher: RayJobLauncher, campaign_id: str, attempt: int) -> None:
        self._launcher = launcher
        self._attempt = campaign_id, attempt
        self._job_id = job_id(campaign_id, attempt)

    def poll(self) -> int | None:
        """Return the exit code, or None while the job lives; a job that the head has forgotten counts as killed."""
        job = self._launcher.api.read(self._job_id)
        if job is not None and job["status"] not in ENDED:
            return None
        left = self._launcher.exit_code(*self._attempt)
        if left is not None:
            return left
        if job is None:
            return _KILLED
        code = job.get("driver_exit_code")
        if code is not None:
            return int(code)
        return {"SUCCEEDED": 0, "STOPPED": _STOPPED}.get(job["status"], _KILLED)

    def request_stop(self) -> None:
        """Interrupt the driver, which asks the ledger what is wanted; it is killed if it takes too long.

        Raises:
            LauncherError: It cannot be asked just now, or has not begun.
        """
        if not self._launcher.api.stop(self._job_id) and self.poll() is None:
            raise LauncherError(f"the Ray job has not begun and cannot be stopped yet: got {self._job_id}")

    def request_pause(self) -> None:
        """Interrupt the driver; the campaign stands as PAUSING, which is what becomes of it."""
        self.request_stop()

    def kill(self) -> None:
        """End it: at once what is on this machine, elsewhere as soon as the cluster does it."""
        kill_marked(self._launcher.mark(*self._attempt))
        with suppress(LauncherError):
            self._launcher.api.stop(self._job_id)


class RayJobLauncher:
    """Starts `python -m spectune.service.driver` as a Ray job.

    Args:
        api: The cluster's Jobs API.
        data: The data directory, at the same path on all nodes.
        num_cpus: How many CPUs all campaigns share; no driver asks for more.
        python: The interpreter, on the node where drivers run.
        variables: What else drivers and workers have in their environment; nothing secret.
        is_local: Whether all of the cluster's processes run on this machine.
    """

    def __init__(
        self,
        api: JobsApi,
        *,
        data: DataDirectory,
        num_cpus: int,
        python: str = "python",
        variables: Mapping[str, str] | None = None,
        is_local: bool = False,
    ) -> None:
        self.api = api
        self.sees_processes = is_local
        self._data = data
        self._num_cpus = num_cpus
        self._python = python
        self._variables = dict(variables or {})

    def problem(self) -> str | None:
        """Return why nothing can be launched just now; None where it can."""
        return self.api.problem()

    def launch(self, campaign_id: str, attempt: int) -> RayJobDriver:
        """Start the driver of an attempt, once: a job of this id is not started again.

        Raises:
            LauncherError: The Jobs API cannot be reached, or refuses.
        """
        name = job_id(campaign_id, attempt)
        self._data.driver_log(campaign_id, attempt).parent.mkdir(parents=True, exist_ok=True)
        job = {
            "submission_id": name,
            "entrypoint": self._command(campaign_id, attempt),
            "runtime_env": {"env_vars": job_environment() | self._variables | {MARK: self.mark(campaign_id, attempt)}},
            "metadata": {"campaign": campaign_id, "attempt": str(attempt)},
        }
        try:
            answer = self.api.submit(job)
            if answer.status_code == httpx.codes.OK:
                return RayJobDriver(self, campaign_id, attempt)
            reason = f"it answered {answer.status_code}"
        except LauncherError as error:
            reason = str(error)
        if self.api.read(name) is not None:  # it was taken, though we were not told
            return RayJobDriver(self, campaign_id, attempt)
        raise LauncherError(f"the Ray Jobs API did not take job {name}: got {reason}")

    def find(self, campaign_id: str, attempt: int) -> RayJobDriver | None:
        """Find the job of an attempt; None where there is none or it has ended."""
        job = self.api.read(job_id(campaign_id, attempt))
        lives = job is not None and job["status"] not in ENDED
        return RayJobDriver(self, campaign_id, attempt) if lives else None

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        """Tell with what code the driver of an attempt ended; None where nobody knows."""
        try:
            return int(self._data.driver_exit(campaign_id, attempt).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def end_remains(self, campaign_id: str, attempt: int) -> list[str]:
        """End what is left of an attempt without a driver: its job, its actors, its processes on this machine."""
        name, mark = job_id(campaign_id, attempt), self.mark(campaign_id, attempt)
        job = self.api.read(name)
        left: list[str] = []
        if job is not None and job["status"] not in ENDED:
            self.api.stop(name)
            left.append(f"job {name} ({job['status']})")
        elif job is not None and job.get("job_id"):
            left += self.api.living_actors(job["job_id"])
        kill_marked(mark)
        return left + [process_name(process) for process in marked(mark)]

    def mark(self, campaign_id: str, attempt: int) -> str:
        """Name the processes of an attempt."""
        return attempt_mark(self._data, campaign_id, attempt)

    def _command(self, campaign_id: str, attempt: int) -> str:
        arguments = ["--data-dir", str(self._data.root), "--campaign", campaign_id, "--attempt", str(attempt)]
        arguments += ["--exit-file", str(self._data.driver_exit(campaign_id, attempt))]
        arguments += ["--in-cluster-of-cpus", str(self._num_cpus)]
        command = shlex.join([self._python, "-P", "-m", "spectune.service.driver", *arguments])
        return f"exec {command} >> {shlex.quote(str(self._data.driver_log(campaign_id, attempt)))} 2>&1"


def job_id(campaign_id: str, attempt: int) -> str:
    """Return the submission id of an attempt's job."""
    return f"{campaign_id}-a{attempt}"
