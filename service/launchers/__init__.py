"""Launchers: start the driver of an attempt, as a process of this machine or as a job of a Ray cluster."""

from service.launchers.jobs_api import JobsApi
from service.launchers.ray_jobs import RayJobLauncher
from service.launchers.subprocess import SubprocessLauncher

__all__ = ["JobsApi", "RayJobLauncher", "SubprocessLauncher"]
