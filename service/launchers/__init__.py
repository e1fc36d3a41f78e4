"""Launchers: start the driver of an attempt, as a process of this machine or as a job of a Ray cluster."""

from spectune.service.launchers.jobs_api import JobsApi
from spectune.service.launchers.ray_jobs import RayJobLauncher
from spectune.service.launchers.subprocess import SubprocessLauncher

__all__ = ["JobsApi", "RayJobLauncher", "SubprocessLauncher"]
