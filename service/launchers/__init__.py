"""Launchers: start the driver of an attempt, as a process of this machine or as a job of a Ray cluster."""

from spectune.service.launchers.jobs_api import JobsApi
from spectune.service.launchers.local_process import SubprocessLauncher
from spectune.service.launchers.ray_jobs import RayJobLauncher

__all__ = ["JobsApi", "RayJobLauncher", "SubprocessLauncher"]
